-- May a call to a provider go out? Answers {verdict, milliseconds, ticket}:
--   go     after so many milliseconds; the place is taken
--   held   no: the account is held back, or its rate is used up for so long
--   open   no: the circuit is open for so long
--   trial  no: somebody tries the provider just now
-- All instants are milliseconds of this server's clock, so that no worker's clock matters.
--
-- KEYS  circuit (hash), pace (text), accounts held back (sorted set, by the end)
-- ARGV  safety (1 or 0), interval, burst, longest wait, longest hold, longest opening, trial's
--       longest time, ticket for a trial, account's member
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local safety = ARGV[1] == '1'
local interval, burst, wait_max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local hold_max, open_max, trial_max = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

-- A server that took over may have an earlier clock: no wait is ever longer than it could be.
local function at_most(instant, wait)
  return math.min(tonumber(instant or 0) or 0, now + wait)
end

local wait, place = 0, now
if not safety then
  -- The generic cell rate algorithm: `place` is when the next call would be due at the exact rate.
  local held = at_most(redis.call('ZSCORE', KEYS[3], ARGV[9]), hold_max)
  place = math.max(at_most(redis.call('GET', KEYS[2]), hold_max + wait_max + burst), held, now)
  wait = math.max(place - burst, held, now) - now
  if wait > wait_max then
    return {'held', math.ceil(wait), ''}
  end
end

local ticket = ''
local circuit = redis.call('HMGET', KEYS[1], 'open_until', 'openings', 'trial_until')
if circuit[1] then
  if safety then
    -- Never refused; what becomes of any of them tells whether the provider is back.
    ticket = 'safety:' .. circuit[2]
  else
    local open_until = at_most(circuit[1], open_max)
    if open_until > now then
      redis.call('HSET', KEYS[1], 'open_until', string.format('%.0f', open_until))
      return {'open', math.ceil(open_until - now), ''}
    end
    local trial_until = tonumber(circuit[3] or 0)
    if trial_until > now and trial_until <= now + trial_max then
      return {'trial', math.ceil(trial_until - now), ''}
    end
    ticket = ARGV[8]
    -- Rounded down: rounded up, it would look too far off to a caller within the same millisecond.
    redis.call('HSET', KEYS[1], 'trial', ticket,
      'trial_until', string.format('%.0f', math.floor(now + trial_max)))
  end
end
if not safety then
  redis.call('SET', KEYS[2], string.format('%.3f', place + interval),
    'PX', math.ceil(place + interval - now) + 1)
end
return {'go', math.ceil(wait), ticket}

-- Decide whether a call to a provider may go out. Returns {verdict, milliseconds, ticket}:
--   go     the call may go out after this many milliseconds; it is counted in the rate
--   held   refused: the account is held back, or its rate is used up, for this long
--   open   refused: the circuit stays open for this long
--   trial  refused: another call is the trial, for at most this long
-- All instants are in milliseconds of this server's clock, so that no worker's clock matters.
--
-- KEYS  circuit (hash), next place in the rate (string), held-back channels (sorted set, by end)
-- ARGV  safety (1 or 0), interval between calls, burst, longest wait, longest hold, longest
--       opening, longest trial, ticket for a trial, member of the channel
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local safety = ARGV[1] == '1'
local interval, burst, wait_max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local hold_max, open_max, trial_max = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

-- After a failover the new server's clock may be behind. Without this limit, a stored instant could
-- mean a wait that is longer than its maximum.
local function at_most(instant, wait)
  return math.min(tonumber(instant or 0) or 0, now + wait)
end

local wait, place = 0, now
if not safety then
  -- The generic cell rate algorithm: `place` is the instant of the next call at the exact rate.
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
    -- Safety calls are never refused. The outcome of each shows whether the provider has recovered.
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
    -- Rounded down. Rounded up, it could exceed now + trial_max for a call in the same millisecond,
    -- which would then become a second trial.
    redis.call('HSET', KEYS[1], 'trial', ticket,
      'trial_until', string.format('%.0f', math.floor(now + trial_max)))
  end
end
if not safety then
  redis.call('SET', KEYS[2], string.format('%.3f', place + interval),
    'PX', math.ceil(place + interval - now) + 1)
end
return {'go', math.ceil(wait), ticket}

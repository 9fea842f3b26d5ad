-- Record the outcome of a call that went out. Returns 'opened', 'closed' or ''.
--
-- KEYS  circuit (hash), last outcomes (list), held-back channels (sorted set, by end)
-- ARGV  outcome (answered, failed or unknown), ticket, failures that open the circuit, number of
--       outcomes that count, their longest age, first opening, longest opening, hold, members of
--       the channels to hold back ... (times in milliseconds)
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local outcome, ticket = ARGV[1], ARGV[2]
local failures_max, calls_max, window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local open_first, open_max, hold = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local DAY = 86400000

local function open(openings)
  local wait = math.min(open_first * 2 ^ math.min(openings - 1, 30), open_max)
  redis.call('HSET', KEYS[1], 'open_until', string.format('%.0f', now + wait),
    'openings', openings, 'opened_at', string.format('%.0f', now))
  redis.call('HDEL', KEYS[1], 'trial', 'trial_until')
  redis.call('PEXPIRE', KEYS[1], math.ceil(wait) + DAY)
  redis.call('DEL', KEYS[2])
  return 'opened'
end

if hold > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
  for i = 9, #ARGV do
    redis.call('ZADD', KEYS[3], 'GT', string.format('%.0f', now + hold), ARGV[i])
  end
  redis.call('PEXPIRE', KEYS[3], DAY)
end

local circuit = redis.call('HMGET', KEYS[1], 'open_until', 'openings', 'trial')
if circuit[1] then
  local of_safety = ticket == 'safety:' .. circuit[2]
  if ticket == '' or not (of_safety or ticket == circuit[3]) then
    -- The call began before the circuit opened, or another trial has replaced it. Its outcome shows
    -- nothing about the provider's present state.
    return ''
  end
  if outcome == 'answered' then
    redis.call('DEL', KEYS[1], KEYS[2])
    return 'closed'
  end
  if outcome == 'unknown' then
    if not of_safety then
      redis.call('HDEL', KEYS[1], 'trial', 'trial_until')
    end
    return ''
  end
  if of_safety and tonumber(circuit[1]) > now then
    -- Safety calls also go out while the circuit is open. Their failure counts as a failed trial
    -- only after the wait.
    return ''
  end
  return open(tonumber(circuit[2]) + 1)
end

if outcome == 'unknown' then
  return ''
end
redis.call('LPUSH', KEYS[2],
  string.format('%.0f', now) .. ':' .. (outcome == 'failed' and '1' or '0'))
redis.call('LTRIM', KEYS[2], 0, calls_max - 1)
redis.call('PEXPIRE', KEYS[2], math.ceil(window))
if outcome == 'failed' then
  local failures = 0
  for _, one in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
    local at, failed = string.match(one, '^(%d+):(%d)$')
    if failed == '1' and tonumber(at) > now - window then
      failures = failures + 1
    end
  end
  if failures >= failures_max then
    return open(1)
  end
end
return ''

-- KEYS: 1 lease, 2... its counters   ARGV: 1 nano-dollars held afterwards, 2... limits (-1: none)
-- -> {1} | {0, counter, used, held} denied | {2, state} not held ('': unknown)
-- Says what is to be held afterwards, not what is added, so that sending it twice adds once. Neither period nor epoch
-- is looked at: a lease counts where it began, and with the counters the lease would be gone.
local v = redis.call('HMGET', KEYS[1], 's', 'a')
if v[1] ~= 'held' then return {2, v[1] or ''} end
local target = tonumber(ARGV[1])
if not target or target ~= math.floor(target) or target > 9007199254740991 then
  return redis.error_reply('ERR the amount is no whole number of nano-dollars')
end
local more = target - tonumber(v[2])
if more <= 0 then return {1} end
for i = 2, #KEYS do
  local limit = tonumber(ARGV[i])
  if limit >= 0 then
    local counter = redis.call('HMGET', KEYS[i], 'u', 'h')
    local used, held = tonumber(counter[1] or 0), tonumber(counter[2] or 0)
    if more > limit - used - held then return {0, i - 1, used, held} end
  end
end
for i = 2, #KEYS do redis.call('HINCRBY', KEYS[i], 'h', string.format('%.0f', more)) end
redis.call('HSET', KEYS[1], 'a', string.format('%.0f', target))
return {1}

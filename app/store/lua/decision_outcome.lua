-- KEYS: 1 decision, 2 room, 3 training log of the decision's day
-- ARGV: 1 source, 2 outcome, 3 id, 4 the room in bytes, 5 the lifetime that room is meant for, 6... name, text, ...
-- -> the decision's fields as they were before (empty: it is gone), and whether the texts found room (1, 0)
local before = redis.call('HGETALL', KEYS[1])
if #before == 0 then return {before, 0} end
redis.call('HSET', KEYS[1], 'outcome:' .. ARGV[1], ARGV[2])
local bytes, room, ttl = 0, tonumber(ARGV[4]), redis.call('TTL', KEYS[1])
for i = 7, #ARGV, 2 do bytes = bytes + #ARGV[i] end
local kept = 1
if bytes > 0 then
  local left = tonumber(redis.call('HGET', KEYS[2], 'left')) or room
  local cost = bytes * math.max(0, ttl) / tonumber(ARGV[5])
  if cost > left then
    kept = 0
  else
    redis.call('HSET', KEYS[2], 'left', string.format('%.0f', left - cost))
    for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], 'text:' .. ARGV[i], ARGV[i + 1]) end
  end
end
if redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1 then
  local decision, outcomes = '', {}
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if fields[i] == 'decision' then decision = fields[i + 1] end
    if string.sub(fields[i], 1, 8) == 'outcome:' then outcomes[#outcomes + 1] = fields[i + 1] end
  end
  redis.call('HSET', KEYS[3], ARGV[3], '[' .. decision .. ',[' .. table.concat(outcomes, ',') .. ']]')
end
return {before, kept}

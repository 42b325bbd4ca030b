-- KEYS: 1 about, 2 messages, 3 index, 4 sizes
-- ARGV: 1 name in the index, 2 '1': only if the index has lost it   -> whether there was such a session (1, 0)
if ARGV[2] == '1' and redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 0 end
local size = tonumber(redis.call('HGET', KEYS[4], ARGV[1]))
if size then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('HDEL', KEYS[4], ARGV[1])
  redis.call('HSET', KEYS[4], '#', string.format('%.0f', (tonumber(redis.call('HGET', KEYS[4], '#')) or 0) - size))
end
local there = redis.call('EXISTS', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
return there

-- KEYS: 1 hash, 2 audit, 3 versions
-- ARGV: 1 field, 2 value before ('' for none), 3 value after ('' to delete), 4 entry, 5 entries kept, 6 their seconds,
--       7 topic, 8 channel   -> 1, or 0 when somebody else was faster
-- A change, its entry and its announcement happen together or not at all.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('LPUSH', KEYS[2], ARGV[4])
redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('HINCRBY', KEYS[3], ARGV[7], 1)
redis.call('PUBLISH', ARGV[8], ARGV[7])
return 1

-- KEYS: 1 keys, 2 revoked, 3 versions   ARGV: 1 id, 2 when, 3 topic, 4 channel   -> 1, or 0 for an unknown id
-- The first revocation's time stays.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1

-- KEYS: 1 keys, 2 versions   ARGV: 1 id, 2 record, 3 topic, 4 channel   -> 1
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1

-- KEYS: 1 about   ARGV: 1 seconds it is kept, 2... field, value, ...   -> 1
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1

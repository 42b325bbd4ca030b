-- KEYS: 1 about, 2 messages   -> the fields of the former, all of the latter, as of one moment
return {redis.call('HGETALL', KEYS[1]), redis.call('LRANGE', KEYS[2], 0, -1)}

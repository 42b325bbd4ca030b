-- KEYS: 1 entry   ARGV: 1 owner, 2 milliseconds for which it goes on (0: it gives up)   -> 1; 0: it is not the owner's
local found = redis.call('HMGET', KEYS[1], 'owner', 'answer')
if found[1] ~= ARGV[1] or found[2] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1

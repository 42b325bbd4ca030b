-- KEYS: 1 entry, 2 room
-- ARGV: 1 print of the request, 2 owner, 3 answer ('' where it is too large), 4 bytes the store takes for an entry,
--       5 the room in bytes, 6 seconds an answer is kept, 7 the fewest that are worth it   -> 1; 0: it is another's now
-- Above half of the room an answer is kept its full time, below in proportion, so that the memory is bounded. One that
-- finds none is remembered as such: it must not look as if it had never been given.
local found = redis.call('HMGET', KEYS[1], 'owner', 'answer')
if found[1] and found[1] ~= ARGV[2] then return 0 end -- none: its time was over before it could be kept
if found[2] then return 1 end
local room, span, least = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local left = tonumber(redis.call('HGET', KEYS[2], 'left')) or room
local seconds, answer = math.floor(span * math.min(1, 2 * left / room)), ARGV[3]
if seconds < least or (#answer + ARGV[4]) * seconds / span > left then
  seconds, answer = math.max(seconds, least), ''
end
left = math.max(0, left - (#answer + ARGV[4]) * seconds / span)
redis.call('HSET', KEYS[2], 'left', string.format('%.0f', left))
redis.call('HSET', KEYS[1], 'print', ARGV[1], 'owner', ARGV[2], 'answer', answer)
redis.call('EXPIRE', KEYS[1], seconds)
return 1

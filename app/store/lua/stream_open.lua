-- KEYS: 1 stream, 2 about, 3 index (whose events expire when), 4 sizes (and '#', their sum)
-- ARGV: 1 who makes it, 2 milliseconds for which it counts as alive, 3 seconds the stream is known, 4 seconds of what is
--       told about it, 5 the room of all streams in bytes, 6 seconds that events are kept   -> 1; 0: there is no room
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(redis.call('HGET', KEYS[4], '#') or 0) >= tonumber(ARGV[5]) then
  -- Who is alive says so all the time, and stands at the end of the index: the first one is over, or there is none.
  local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) > now + ARGV[6] * 1000 - 2 * ARGV[2] then return 0 end
end
redis.call('HSET', KEYS[1], 'by', ARGV[1], 'state', 'running', 'last', 0, 'bytes', 1024, 'until',
  string.format('%.0f', now + ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[2], 'status', 'running')
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1

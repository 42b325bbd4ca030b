-- KEYS: 1 about, 2 messages, 3 index (who expires when), 4 sizes (and '#', their sum)
-- ARGV: 1 name in the index, 2 token of this write, 3 when the session was born as far as the writer knows ('': never),
--       4 the version it read, 5 how many messages stay (-1: all there are), 6 bytes of those, 7 '1': whatever stands,
--       8 seconds to live, 9 the room of all sessions in bytes, 10 how many of the following are field, value, ...,
--       11... those, and then the messages to append
-- -> 'kept', names of sessions that had to go for it ... | 'gone': it was deleted | 'changed': it was rewritten
local known = redis.call('HMGET', KEYS[1], 'born', 'version', 'rewritten', 'tokens', 'bytes')
local born, tokens = known[1], known[4] or ''
if born and string.find(tokens, ARGV[2], 1, true) then return {'kept'} end
if ARGV[3] ~= '' and born ~= ARGV[3] then return {'gone'} end
local stay = tonumber(ARGV[5])
if born and ARGV[7] ~= '1' and known[2] ~= ARGV[4] then
  -- What others appended meanwhile stands before this; what they rewrote is another conversation.
  if stay >= 0 or (ARGV[3] ~= '' and tonumber(known[3]) > tonumber(ARGV[4])) then return {'changed'} end
end
local time = redis.call('TIME')
local now = tonumber(time[1])
local version = string.format('%.0f', now * 1000000 + tonumber(time[2]))
local bytes = tonumber(ARGV[6])
if not born then redis.call('DEL', KEYS[2]) end
if stay < 0 then
  bytes = tonumber(known[5]) or 0
else
  redis.call('HSET', KEYS[1], 'rewritten', version)
  if stay == 0 then redis.call('DEL', KEYS[2]) else redis.call('LTRIM', KEYS[2], 0, stay - 1) end
end
local first = 11 + tonumber(ARGV[10])
for i = first, #ARGV do
  redis.call('RPUSH', KEYS[2], ARGV[i])
  bytes = bytes + #ARGV[i]
end
if not born then redis.call('HSET', KEYS[1], 'born', version, 'rewritten', version) end
local size = bytes
for i = 11, first - 1, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  size = size + #ARGV[i + 1]
end
tokens = string.sub(tokens .. ARGV[2], -128)
redis.call('HSET', KEYS[1], 'version', version, 'tokens', tokens, 'bytes', string.format('%.0f', bytes))
redis.call('EXPIRE', KEYS[1], ARGV[8])
redis.call('EXPIRE', KEYS[2], ARGV[8])

-- All sessions together stay within their room: those that would expire first go first.
local sum = tonumber(redis.call('HGET', KEYS[4], '#')) or 0
local function forget(name)
  sum = sum - (tonumber(redis.call('HGET', KEYS[4], name)) or 0)
  redis.call('ZREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do forget(name) end
forget(ARGV[1])
local answer = {'kept'}
while sum + size > tonumber(ARGV[9]) and #answer < 50 do
  local name = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if not name then break end
  forget(name)
  answer[#answer + 1] = name
end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[8]), ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', size), '#', string.format('%.0f', sum + size))
return answer

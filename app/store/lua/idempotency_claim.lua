-- KEYS: 1 entry, 2 room
-- ARGV: 1 print of the request, 2 owner, 3 milliseconds after which a silent owner is given up, 4 the room in bytes,
--       5 seconds an answer is kept, 6 the fewest that are worth it
-- -> 'mine', 'other' (the entry is another request's), 'running', 'unkept', 'full'; or 'answer', who sealed it and itself
local found = redis.call('HMGET', KEYS[1], 'print', 'owner', 'answer')
if found[1] then
  if found[1] ~= ARGV[1] then return {'other'} end
  if found[3] == '' then return {'unkept'} end
  if found[3] then return {'answer', found[2], found[3]} end
  return {found[2] == ARGV[2] and 'mine' or 'running'}
end
-- Room flows back at one whole in the time an answer is kept, and is reckoned up here alone.
local room, span, now = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(redis.call('TIME')[1])
local known = redis.call('HMGET', KEYS[2], 'left', 'at')
local left = tonumber(known[1]) or room
left = math.min(room, left + math.max(0, now - (tonumber(known[2]) or now)) * room / span)
redis.call('HSET', KEYS[2], 'left', string.format('%.0f', left), 'at', string.format('%.0f', now))
if span * math.min(1, 2 * left / room) < tonumber(ARGV[6]) then return {'full'} end
redis.call('HSET', KEYS[1], 'print', ARGV[1], 'owner', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'mine'}

-- KEYS: 1 stream, 2 events, 3 about
-- ARGV: 1 number of the last event that is known already, 2 batches at most
-- -> {'there', state, {{'<number of its last event>-0', {'e', events}} ...}} | {'gone', field, value ...} | {'never'}
local known = redis.call('HMGET', KEYS[1], 'state', 'last', 'until', 'read')
local state, last = known[1], tonumber(known[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function gone()
  local about = redis.call('HGETALL', KEYS[3])
  if #about == 0 then return {'never'} end
  table.insert(about, 1, 'gone')
  return about
end
if state == 'running' and now > tonumber(known[3]) then
  state = 'broken' -- for good, so that all who read it are told the same
  redis.call('HSET', KEYS[1], 'state', state)
end
if not state or state == 'broken' then
  -- Who makes a stream keeps it known: one that is not, and is not over, has lost its maker.
  if redis.call('HGET', KEYS[3], 'status') == 'running' then redis.call('HSET', KEYS[3], 'status', 'broken') end
end
if not state or state == 'dropped' or (last > 0 and redis.call('EXISTS', KEYS[2]) == 0) then return gone() end
if state == 'running' and now - (known[4] or 0) > 500 then
  redis.call('HSET', KEYS[1], 'read', string.format('%.0f', now))
end
return {'there', state, redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}

-- KEYS: 1 epoch, 2 lease, 3 leases, 4 settlements acknowledged to those who settle, then its counters, then the keys of
--       the cost cells
-- ARGV: 1 epoch, 2 lease id, 3 nano-dollars charged ('': all that is held), 4 final (settled, released, expired,
--       recorded), 5 lifetime of the record of an expired lease, 6 of any other, 7 number of counters,
--       8 number of periods (0, or as many as counters), 9 how many acknowledged settlements they know of ('': they do
--       not count them), 10 for how many seconds the store does, then per period: end, milliseconds kept,
--       then per key of cells: its seconds (0: for ever), number of cells, and per cell: field, amount
-- -> {1, state before, change of used, held before, acknowledged} | {2, state} final already ('': unknown)
--    | {3} not due yet | {-1, epoch, older} unknown here, and this is another epoch, or (older 1) the store has fewer
--    settlements than it acknowledged: then it counts no more of them, so that it never seems to have them again
-- An expired lease was charged without being asked; who settles it late corrects that charge, and the cells, once.
-- `recorded` books what was never held. A release that comes before its admission leaves word of itself.
local id, final, counters, periods = ARGV[2], ARGV[4], tonumber(ARGV[7]), tonumber(ARGV[8])
local v = redis.call('HMGET', KEYS[2], 's', 'a', 'c')
local state, held, charged = v[1] or '', v[2] or '0', v[3] or '0'
local actual, change = ARGV[3], 0
local known, seen = tonumber(ARGV[9]), 0
if known then seen = tonumber(redis.call('GET', KEYS[4]) or 0) end
if actual == '' then actual = held end

if state == '' then
  local epoch = redis.call('GET', KEYS[1])
  if not epoch or epoch ~= ARGV[1] then return {-1, epoch or '', 0} end
  if known and seen < known then return {-1, epoch, 1} end
  if final == 'released' then
    redis.call('HSET', KEYS[2], 's', final)
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
  end
  if final ~= 'recorded' then return {2, ''} end
elseif state == 'expired' then
  if final == 'expired' then return {2, state} end
elseif state ~= 'held' then
  return {2, state}
elseif final == 'expired' then
  local due, t = tonumber(redis.call('ZSCORE', KEYS[3], id) or 0), redis.call('TIME')
  if due > t[1] * 1000 + math.floor(t[2] / 1000) then return {3} end
end
change = tonumber(actual) - tonumber(charged)

redis.call('HSET', KEYS[2], 's', final, 'c', actual)
redis.call('HDEL', KEYS[2], 'k', 'n', 'r', 'm')
redis.call('PEXPIRE', KEYS[2], final == 'expired' and ARGV[5] or ARGV[6])
redis.call('ZREM', KEYS[3], id)

for i = 1, counters do
  local key = KEYS[4 + i]
  if state == '' then
    redis.call('HINCRBY', key, 'u', actual)
    local ends, kept = tonumber(ARGV[9 + 2 * i]), tonumber(ARGV[10 + 2 * i])
    if ends > 0 then
      redis.call('PEXPIREAT', key, string.format('%.0f', ends + kept))
    elseif kept > 0 then
      redis.call('PEXPIRE', key, string.format('%.0f', kept))
    end
  elseif redis.call('EXISTS', key) == 1 then -- one whose time is over does not come back
    if state == 'held' and held ~= '0' then redis.call('HINCRBY', key, 'h', string.format('%.0f', -tonumber(held))) end
    if change ~= 0 then redis.call('HINCRBY', key, 'u', string.format('%.0f', change)) end
  end
end

local a, k = 11 + 2 * periods, 5 + counters
while k <= #KEYS do
  local seconds, last = tonumber(ARGV[a]), a + 2 * tonumber(ARGV[a + 1])
  for i = a + 2, last, 2 do
    local amount, booked = ARGV[i + 1], 'x:' .. KEYS[k] .. ':' .. ARGV[i]
    if state == 'expired' then
      amount = string.format('%.0f', tonumber(amount) - tonumber(redis.call('HGET', KEYS[2], booked) or 0))
    elseif final == 'expired' then
      redis.call('HSET', KEYS[2], booked, amount)
    end
    if amount ~= '0' then redis.pcall('HINCRBY', KEYS[k], ARGV[i], amount) end -- a sum that is full stays as it is
  end
  if seconds > 0 then redis.call('EXPIRE', KEYS[k], ARGV[a]) end
  a, k = last + 2, k + 1
end

if known and seen >= known then
  seen = seen + 1
  redis.call('SET', KEYS[4], string.format('%.0f', seen), 'EX', ARGV[10])
end
return {1, state, change, tonumber(held), seen}

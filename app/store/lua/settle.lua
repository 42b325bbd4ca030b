-- KEYS: 1 epoch, 2 leases, 3 settlements acknowledged to those who settle, then the lease of each settlement, then the
--       counters, then the keys of the cost cells
-- ARGV: 1 number of settlements, 2 of counters, 3 of cells, 4 lifetime of the record of an expired lease, 5 of any other,
--       6 how many acknowledged settlements they know of ('': they do not count them), 7 for how many seconds the store
--       does, then per counter: its place in KEYS, end, milliseconds kept, per cell: its place in KEYS, field, seconds of
--       the key (0: for ever), and per settlement: epoch, lease id, nano-dollars charged ('': all that is held), final
--       (settled, released, expired, recorded), how many of the counters, how many of the cells, which counters, and
--       which cell by how much
-- -> per settlement: {1, state before, change of used, held before, acknowledged} | {2, state} final already
--    ('': unknown) | {3} not due yet | {-1, epoch, older} unknown here, and this is another epoch, or (older 1) the
--    store has fewer settlements than it acknowledged: then it counts no more of them, so that it never seems to have
--    them again | an error, which is no affair of the others
-- An expired lease was charged without being asked; who settles it late corrects that charge, and the cells, once.
-- `recorded` books what was never held. A release that comes before its admission leaves word of itself.
-- What all settlements add to the same field is added up first. A number that is so large that its sum might not be
-- exact goes alone.
local settlements, counters, cells = tonumber(ARGV[1]), {}, {}
local known, LARGE = tonumber(ARGV[6]), 2 ^ 44
local epoch, seen = redis.call('GET', KEYS[1]), 0
if known then seen = tonumber(redis.call('GET', KEYS[3]) or 0) end
local counted = known and seen >= known

local function add(key, field, amount) -- a sum that is full stays as it is, and the others are written
  redis.pcall('HINCRBY', key, field, type(amount) == 'string' and amount or string.format('%.0f', amount))
end

local function more(sum, key, field, amount)
  local number = tonumber(amount)
  if math.abs(number) < LARGE then return sum + number end
  add(key, field, amount)
  return sum
end

local at = 7
for i = 1, tonumber(ARGV[2]) do
  counters[i] = {key = KEYS[tonumber(ARGV[at + 1])], ends = tonumber(ARGV[at + 2]) or 0,
    kept = tonumber(ARGV[at + 3]) or 0, u = 0, h = 0}
  at = at + 3
end
for i = 1, tonumber(ARGV[3]) do
  cells[i] = {key = KEYS[tonumber(ARGV[at + 1])], field = ARGV[at + 2], seconds = ARGV[at + 3], sum = 0}
  at = at + 3
end

local over = {} -- ids of leases that are open no more
local function settle(lease, mine, id, actual, final, first, last_counter, last)
  local v = redis.call('HMGET', lease, 's', 'a', 'c')
  local state, held = v[1] or '', v[2] or '0'
  if actual == '' then actual = held end
  local change, freed = tonumber(actual) - tonumber(v[3] or 0), -tonumber(held)
  if state == '' then
    if not epoch or epoch ~= mine then return {-1, epoch or '', 0} end
    if known and not counted then return {-1, epoch, 1} end
    if final == 'released' then
      redis.call('HSET', lease, 's', final)
      redis.call('PEXPIRE', lease, ARGV[5])
    end
    if final ~= 'recorded' then return {2, ''} end
  elseif state == 'expired' then
    if final == 'expired' then return {2, state} end
  elseif state ~= 'held' then
    return {2, state}
  elseif final == 'expired' then
    local due, t = tonumber(redis.call('ZSCORE', KEYS[2], id) or 0), redis.call('TIME')
    if due > t[1] * 1000 + math.floor(t[2] / 1000) then return {3} end
  end

  redis.call('HSET', lease, 's', final, 'c', actual)
  redis.call('HDEL', lease, 'k', 'n', 'r', 'm')
  redis.call('PEXPIRE', lease, final == 'expired' and ARGV[4] or ARGV[5])
  over[#over + 1] = id

  for i = first, last_counter do
    local counter = counters[tonumber(ARGV[i])]
    if state == '' then
      counter.there, counter.anew = true, true
    elseif counter.there == nil then
      counter.there = redis.call('EXISTS', counter.key) == 1
    end
    if counter.there then -- one whose time is over does not come back
      if state == 'held' then counter.h = more(counter.h, counter.key, 'h', freed) end
      counter.u = more(counter.u, counter.key, 'u', change)
    end
  end

  for i = last_counter + 1, last, 2 do
    local cell, amount = cells[tonumber(ARGV[i])], ARGV[i + 1]
    if state == 'expired' then
      local before = redis.call('HGET', lease, 'x:' .. cell.key .. ':' .. cell.field)
      amount = string.format('%.0f', tonumber(amount) - tonumber(before or 0))
    elseif final == 'expired' then
      redis.call('HSET', lease, 'x:' .. cell.key .. ':' .. cell.field, amount)
    end
    cell.named, cell.sum = true, more(cell.sum, cell.key, cell.field, amount)
  end
  if counted then seen = seen + 1 end
  return {1, state, change, -freed, seen}
end

local replies = {}
for i = 1, settlements do
  local last_counter = at + 6 + tonumber(ARGV[at + 5])
  local last = last_counter + 2 * tonumber(ARGV[at + 6])
  local fine, said = pcall(
    settle, KEYS[3 + i], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], at + 7, last_counter, last)
  if not fine then
    local why = type(said) == 'table' and said.err or said
    local kind = why:match('^%u+') or ''
    -- A store that takes no writes now has taken none of these: nothing is done, and all are told so.
    if kind ~= '' and kind ~= 'ERR' and kind ~= 'WRONGTYPE' then return redis.error_reply(why) end
    said = redis.error_reply(kind == '' and 'ERR ' .. why or why)
  end
  replies[i] = said
  at = last
end

for _, counter in ipairs(counters) do
  if counter.h ~= 0 then add(counter.key, 'h', counter.h) end
  if counter.u ~= 0 or counter.anew then add(counter.key, 'u', counter.u) end
  if counter.anew and counter.ends > 0 then
    redis.pcall('PEXPIREAT', counter.key, string.format('%.0f', counter.ends + counter.kept))
  elseif counter.anew and counter.kept > 0 then
    redis.pcall('PEXPIRE', counter.key, string.format('%.0f', counter.kept))
  end
end
local ending = {}
for _, cell in ipairs(cells) do
  if cell.sum ~= 0 then add(cell.key, cell.field, cell.sum) end
  if cell.named and cell.seconds ~= '0' then ending[cell.key] = cell.seconds end
end
for key, seconds in pairs(ending) do redis.pcall('EXPIRE', key, seconds) end

if #over > 0 then
  redis.call('ZREM', KEYS[2], unpack(over))
  if counted then redis.call('SET', KEYS[3], string.format('%.0f', seen), 'EX', ARGV[7]) end
end
return replies

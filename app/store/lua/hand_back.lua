-- KEYS: the rates, then the seats, if any   ARGV: 1 number of rates, 2 holder, then per rate: microseconds of a unit, units
-- What flowed back by itself meanwhile is not given twice. Units below zero are a debt that the next ones wait for.
local rates = tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
for i = 1, rates do
  local before = math.max(now, tonumber(redis.call('GET', KEYS[i]) or 0))
  local after = before - tonumber(ARGV[1 + 2 * i]) * tonumber(ARGV[2 + 2 * i])
  if after > now then
    local ms = math.min(86400000, math.ceil((after - now) / 1000))
    redis.call('SET', KEYS[i], string.format('%.0f', after), 'PX', string.format('%.0f', ms))
  else
    redis.call('DEL', KEYS[i])
  end
end
if #KEYS > rates then redis.call('ZREM', KEYS[#KEYS], ARGV[2]) end
return 1

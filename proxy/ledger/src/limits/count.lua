-- One bucket: when it is whole again, in microseconds of this server's clock (GCRA); which edge called for it last
-- and when, and when another one had called before.
-- ARGV: the period in microseconds, requests in it, requests in the bucket, requests to count
-- (below zero: to give back), requests to grant of what is left then; who asks, and for how many microseconds
-- it is remembered who called.
-- Answers how many were granted, microseconds until the bucket is whole, and 1 where another edge calls for it too.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost = ARGV[1] / ARGV[2]
local full = ARGV[3] * cost
-- More than three buckets beyond the limit are not held against anybody, and a clock that was set
-- back keeps nobody out for longer than that.
local function bounded(whole)
  return math.min(math.max(whole, now), now + 4 * full)
end
local known, last, at, other = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+) (%S+) (%S+)$')
if last ~= ARGV[6] then
  other = at
end
other = tonumber(other or 0) or 0
local whole = bounded(tonumber(known or now) or now)
whole = bounded(whole + ARGV[4] * cost)
local room = math.floor((now + full - whole) / cost + 0.001)
local granted = math.max(math.min(room, tonumber(ARGV[5])), 0)
whole = whole + granted * cost
local ahead = math.ceil(whole - now)
local value = string.format('%.2f %s %.0f %.0f', whole, ARGV[6], now, other)
redis.call('SET', KEYS[1], value, 'PX', math.ceil(math.max(ahead, tonumber(ARGV[7])) / 1000))
local shared = 0
if now - other < tonumber(ARGV[7]) then
  shared = 1
end
return { granted, ahead, shared }

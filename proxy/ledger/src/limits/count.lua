-- One bucket: when it is whole again, in microseconds of this server's clock (GCRA).
-- ARGV: the period in microseconds, requests in it, requests in the bucket, requests to count
-- (below zero: to give back), requests to grant of what is left then.
-- Answers how many were granted, and microseconds until the bucket is whole.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost = ARGV[1] / ARGV[2]
local full = ARGV[3] * cost
-- More than three buckets beyond the limit are not held against anybody, and a clock that was set
-- back keeps nobody out for longer than that.
local function bounded(whole)
  return math.min(math.max(whole, now), now + 4 * full)
end
local whole = bounded(tonumber(redis.call('GET', KEYS[1]) or now) or now)
whole = bounded(whole + ARGV[4] * cost)
local room = math.floor((now + full - whole) / cost + 0.001)
local granted = math.max(math.min(room, tonumber(ARGV[5])), 0)
whole = whole + granted * cost
local ahead = math.ceil(whole - now)
redis.call('SET', KEYS[1], string.format('%.2f', whole), 'PX', math.max(math.ceil(ahead / 1000), 1))
return { granted, ahead }

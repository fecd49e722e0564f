#!lua flags=allow-oom
-- Retention: drops the oldest events, from anchor to anchor. A little at a time: the caller comes again.
-- KEYS: stream, meta, anchors, marks. ARGV: age in ms, bytes, count; -1 for none.
-- Answer: steps dropped, 1 when more may be due.
local stream, meta, anchors, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local age, bytes_max, count_min = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local STEPS_MAX, EVENTS_MAX = 1024, 20000
local m = redis.call('HMGET', meta, 'seq', 'bytes')
local seq, bytes = tonumber(m[1] or '0'), tonumber(m[2] or '0')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local events = 0
for steps = 0, STEPS_MAX - 1 do
  local two = redis.call('ZRANGE', anchors, 0, 1, 'WITHSCORES')
  if #two < 4 then
    return { steps, 0 }
  end
  local first, second = tonumber(two[2]), tonumber(two[4])
  local goes = count_min >= 0 and seq + 1 - second >= count_min
  if bytes_max >= 0 and not goes then
    local mark = redis.call('HGET', marks, two[2])
    goes = mark and bytes - tonumber(cjson.decode(mark)[1]) > bytes_max
  end
  if age >= 0 and not goes then
    local newest = redis.call('XREVRANGE', stream, '(' .. two[3], '-', 'COUNT', 1)[1]
    goes = not newest or tonumber(string.match(newest[1], '^%d+')) + age < now
  end
  if not goes then
    return { steps, 0 }
  end
  if events > EVENTS_MAX then
    return { steps, 1 }
  end
  events = events + second - first
  redis.call('XTRIM', stream, 'MINID', '=', two[3])
  redis.call('ZREM', anchors, two[1])
  redis.call('HDEL', marks, two[2])
end
return { STEPS_MAX, 1 }

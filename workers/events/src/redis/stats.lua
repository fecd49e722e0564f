#!lua flags=no-writes
-- What is stored, at one moment. KEYS: stream, meta, anchors, marks, types.
-- Answer: seq, message id, seq of the oldest event kept, events, bytes, oldest message id or '', then of each type
-- its name and its number.
local stream, meta, anchors, marks, types = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local m = redis.call('HMGET', meta, 'seq', 'id', 'bytes')
local seq, bytes = tonumber(m[1] or '0'), tonumber(m[3] or '0')
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local anchor = redis.call('ZRANGE', anchors, 0, 0, 'WITHSCORES')
local first, gone = seq + 1, {}
if anchor[2] then
  first = tonumber(anchor[2])
  local mark = redis.call('HGET', marks, anchor[2])
  if mark then
    mark = cjson.decode(mark)
    bytes = bytes - tonumber(mark[1])
    for i = 1, #mark[2], 2 do
      gone[mark[2][i]] = tonumber(mark[2][i + 1])
    end
  end
end
local out = { seq, m[2] or '0-0', first, redis.call('XLEN', stream), bytes, oldest and oldest[1] or '' }
local all = redis.call('HGETALL', types)
for i = 1, #all, 2 do
  local left = tonumber(all[i + 1]) - (gone[all[i]] or 0)
  if left > 0 then
    out[#out + 1] = all[i]
    out[#out + 1] = left
  end
end
return out

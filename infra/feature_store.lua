-- One chunk of side rows → rings, position and watermark: all of it, or nothing.
--
-- KEYS  the topic's progress (a hash: partition → position, 'watermark'), then one ring per packed rows
-- ARGV  partition, expected position ('' for none), next position, newest event time of the chunk ('' for none),
--       rows from which a ring is checked, number of families;
--       per family: bytes of a row, ms kept behind the watermark, 1 to keep the last older row, number of its rings;
--       then the packed rows, ring by ring
-- Returns {1 if applied, position, watermark}, '' for none. Positions and times pass through as text: a Lua number
-- prints 14 digits.

local function time_of(row)
  return (struct.unpack('<i8', row))
end

-- As streams/rings.py: trimmed.
local function trim(key, width, cutoff, keep_last)
  local ring = redis.call('GET', key)
  local at, spared, newest = 1, {}, nil
  while at <= #ring do
    local time = time_of(string.sub(ring, at, at + 7))
    if time >= cutoff then break end
    if keep_last and (newest == nil or time >= newest) then
      if time ~= newest then spared = {} end
      newest = time
      spared[#spared + 1] = string.sub(ring, at, at + width - 1)
    end
    at = at + width
  end
  if at == 1 then return end
  local rest = table.concat(spared) .. string.sub(ring, at)
  if rest == '' then redis.call('DEL', key) else redis.call('SET', key, rest) end
end

local partition, expected, next_position, newest = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local trim_from, families = tonumber(ARGV[5]), tonumber(ARGV[6])

-- 1. Is this the chunk that comes next?
local stored = redis.call('HMGET', KEYS[1], partition, 'watermark')
local position, watermark = stored[1] or '', stored[2] or ''
if position ~= expected then return {0, position, watermark} end

-- 2. The watermark first: it trims the rings that grow.
if newest ~= '' and (watermark == '' or tonumber(newest) > tonumber(watermark)) then watermark = newest end

-- 3. The rows.
local key, rows = 1, 6 + 4 * families
for family = 0, families - 1 do
  local width, keep_ms = tonumber(ARGV[7 + 4 * family]), tonumber(ARGV[8 + 4 * family])
  local keep_last, rings = ARGV[9 + 4 * family] == '1', tonumber(ARGV[10 + 4 * family])
  local cutoff = watermark ~= '' and tonumber(watermark) - keep_ms
  for _ = 1, rings do
    key, rows = key + 1, rows + 1
    local count = redis.call('APPEND', KEYS[key], ARGV[rows]) / width
    if cutoff and count >= trim_from then
      local middle = math.floor(count / 2) * width
      if time_of(redis.call('GETRANGE', KEYS[key], middle, middle + 7)) < cutoff then
        trim(KEYS[key], width, cutoff, keep_last)
      end
    end
  end
end

-- 4. The position.
redis.call('HSET', KEYS[1], partition, next_position)
if watermark ~= '' then redis.call('HSET', KEYS[1], 'watermark', watermark) end
return {1, next_position, watermark}

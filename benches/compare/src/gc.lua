-- Counts G and C in a file of bases, in two ways; prints each count and the seconds that it took.
local file = assert(io.open((...), "rb"))
local bases = file:read("*a")
file:close()

local byte, clock = string.byte, os.clock

local function by_bytes()
  local count = 0
  for i = 1, #bases do
    local base = byte(bases, i)
    if base == 67 or base == 71 then count = count + 1 end
  end
  return count
end

local function by_gsub()
  local _, count = bases:gsub("[CG]", "")
  return count
end

for _, count in ipairs({ by_bytes, by_gsub }) do
  local start = clock()
  local found = count()
  print(found, clock() - start)
end

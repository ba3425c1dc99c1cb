-- Given `path` (names from the globals down) and `prefix`: the names that begin with it there.
local MOST_KEYS, MOST_NAMES, DEEPEST = 100000, 500, 8
local names, seen = {}, {}

local function is_name(key)
  return type(key) == "string" and string.find(key, "^[%a_][%w_]*$") and string.sub(key, 1, #prefix) == prefix
end

-- The table that a missing field is looked up in, when it is a table.
local function fallback(value)
  local meta = getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  return type(index) == "table" and index or nil
end

-- Calls look(t) for the tables in which fields of `value` are found, until it returns something.
local function each_table(value, look)
  local here = type(value) == "table" and value or fallback(value)
  for _ = 1, DEEPEST do
    if not here then return nil end
    local found = look(here)
    if found ~= nil then return found end
    here = fallback(here)
  end
end

local value = _G
for _, name in ipairs(path) do
  value = each_table(value, function(t) return rawget(t, name) end)
  if value == nil then return names end
end

local looked_at = 0
each_table(value, function(t)
  for key in next, t do
    looked_at = looked_at + 1
    if looked_at > MOST_KEYS or #names >= MOST_NAMES then return true end
    if is_name(key) and not seen[key] then
      seen[key] = true
      names[#names + 1] = key
    end
  end
end)
table.sort(names)
return names

-- A watch that names the end of all keys is not checked by older stores: it never reaches one here.
-- Messages are passed on whole, once they have been understood; whatever is not understood ends the
-- stream's way to the store, and nothing after it passes either. An error in here must not let a
-- request through, hence the pcall.

local WATCH = "/etcdserverpb.Watch/Watch"
local LIMIT = 65536 -- bytes of one message; a watch is asked for in less than a hundred

-- A varint at `at`: its value and what follows; nothing when it is cut off or too long.
local function varint(text, at)
  local value, scale = 0, 1
  for i = at, at + 9 do
    local byte = text:byte(i)
    if byte == nil then return nil end
    value = value + (byte % 128) * scale
    if byte < 128 then return value, i + 1 end
    scale = scale * 128
  end
  return nil
end

-- Calls found(field, bytes) for each field; false when the message is not well-formed, when a field
-- comes twice, or when found() says so.
local function each(text, found)
  local at, seen = 1, {}
  while at <= #text do
    local tag, size
    tag, at = varint(text, at)
    if tag == nil then return false end
    local field, kind = math.floor(tag / 8), tag % 8
    if kind == 0 then
      if seen[field] and field ~= 5 then return false end -- filters repeat
      local value
      value, at = varint(text, at)
      if value == nil or not found(field, nil) then return false end
    elseif kind == 2 then
      if seen[field] and field ~= 5 then return false end
      size, at = varint(text, at)
      if size == nil or at + size - 1 > #text then return false end
      if not found(field, text:sub(at, at + size - 1)) then return false end
      at = at + size
    else
      return false
    end
    seen[field] = true
  end
  return true
end

-- A request to create a watch ends inside the keys of the mesh; others are harmless.
local function good(message)
  local requests = 0
  return each(message, function(kind, body)
    requests = requests + 1
    if requests > 1 or body == nil or kind < 1 or kind > 3 then return false end
    if kind > 1 then return true end
    return each(body, function(field, bytes)
      if field ~= 2 then return true end
      return bytes ~= nil and (bytes == "" or bytes:sub(1, 7) == "cilium/")
    end)
  end)
end

-- Takes what is whole from the front of `text`: what may pass and what is left; nothing: refused.
local function whole(text)
  local passed = {}
  while #text >= 5 do
    local a, b, c, d = text:byte(2, 5)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    if text:byte(1) ~= 0 or size > LIMIT then return nil end
    if #text < size + 5 then break end
    if not good(text:sub(6, size + 5)) then return nil end
    passed[#passed + 1] = text:sub(1, size + 5)
    text = text:sub(size + 6)
  end
  return table.concat(passed), text
end

function envoy_on_request(handle)
  if handle:headers():get(":path") ~= WATCH then return end
  local left, refused = "", false
  for chunk in handle:bodyChunks() do
    local fine, passed, rest = pcall(function()
      return whole(left .. chunk:getBytes(0, chunk:length()))
    end)
    if refused or not fine or passed == nil then
      if not refused then handle:logWarn("a watch was refused") end
      refused, left = true, ""
      chunk:setBytes("")
    else
      left = rest
      chunk:setBytes(passed)
    end
  end
end

-- Several streams of frames through one set of networks: what they ask of a network at the same time runs as one batch, and each goes on with its own row.
-- Streams are coroutines, of which one works at a time. Knows nothing of what the networks answer.
local ops = require "libration.ops"
local tensor = require "libration.tensor"

local together = {}

-- Outputs for inputs of one row each, as one batch.
local function batch(network, inputs)
  return network:run(#inputs == 1 and inputs[1] or ops.concat(inputs, 1))
end

local function run(networks, count, most, work)
  local results, live, begun, shared, names = {}, {}, 0, {}, {}
  for name in pairs(networks) do
    names[#names + 1] = name
    -- a stream waits outside of its scope, which is not that of the stream that works meanwhile
    shared[name] = {
      run = function(_, input)
        local outputs, err = tensor.unscoped(coroutine.yield, name, input)
        return outputs or error(err, 0)
      end,
    }
  end
  table.sort(names)
  local function go(stream, ...)
    local ok, name, input = coroutine.resume(stream.thread, ...)
    if not ok then error(name, 0) end
    stream.name, stream.input = name, input
  end
  while true do
    while #live < most and begun < count do
      begun = begun + 1
      local i = begun
      live[#live + 1] = { thread = coroutine.create(function() results[i] = { pcall(work, i, shared) } end) }
      go(live[#live])
    end
    for _, name in ipairs(names) do
      local waiting, inputs = {}, {}
      for _, stream in ipairs(live) do
        if stream.name == name then waiting[#waiting + 1], inputs[#inputs + 1] = stream, stream.input end
      end
      local ok, outputs
      if #waiting > 0 then ok, outputs = pcall(tensor.scope, batch, networks[name], inputs) end
      for k, stream in ipairs(waiting) do
        if ok then
          local own = {}
          for key, t in pairs(outputs) do own[key] = t:narrow(1, k, 1) end
          go(stream, own)
        else
          go(stream, nil, outputs)
        end
      end
    end
    for k = #live, 1, -1 do
      if not live[k].name then table.remove(live, k) end
    end
    for _, result in pairs(results) do
      if not result[1] and tostring(result[2]):find("interrupted", 1, true) then error(result[2], 0) end
    end
    if #live == 0 and begun == count then return results end
  end
end

--- Runs work(i, shared) for i = 1 .. count, `most` of them at once. shared has an object with :run for each network, which takes an input of one row; inputs that streams
--- wait with at the same time run as one batch. Outputs are those of the stream's own row, valid until it asks again.
---@param networks table<string, table> objects with :run of one input, by name
---@param count integer
---@param most integer
---@param work fun(i: integer, shared: table): any
---@return table[] results of each: {true, what work returned} or {false, its error}; an interruption is raised
function together.run(networks, count, most, work) return tensor.unscoped(run, networks, count, most, work) end

return together

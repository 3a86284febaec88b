-- embedding.lua: rows of a trained table by index.
local module = require "libration.nn.module"
local ops = require "libration.ops"

---@class Embedding: Module
local Embedding = module.class "Embedding"

--- Table of vectors; weight [rows,size], normal (0, 1) as PyTorch.
---@param rows integer
---@param size integer
---@return Embedding
function Embedding.new(rows, size)
  local self = module.create(Embedding)
  self.rows, self.size = module.size(rows, "Embedding", "rows"), module.size(size, "Embedding", "size")
  self:parameter("weight", module.normal {rows, size})
  return self
end

---@param index Tensor i32 [..], from 0
---@return Tensor [..,size]
function Embedding:forward(index) return ops.gather(self.weight, index) end

function Embedding:extra() return ("%d x %d"):format(self.rows, self.size) end

return Embedding

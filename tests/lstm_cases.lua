-- lstm_cases: layers, the raw ops on them and comparisons, for the specs of the LSTM on the CPU and on a device. Asserts nothing about either.
local lr = require "libration"
local ops = require "libration.ops"
local raw, rows = ops.raw, ops.rows

local cases = {}

local WIDE = {w = true, r = true, b = true, c0 = true, dcn = true} -- f32 beside operands of half precision

--- lstm_forward of p {x, w, r, b, h0?, c0?}.
---@return table {y, hn, cn, gates, cells}
function cases.forward(p, save)
  local attr = rows.lstm_forward.attr()
  attr.save = save and 1 or 0
  local y, hn, cn, gates, cells = raw.lstm_forward(p.x, p.w, p.r, p.b, p.h0, p.c0, attr)
  return {y = y, hn = hn, cn = cn, gates = gates, cells = cells}
end

--- lstm_backward of p, what forward gave with save, and g {dy?, dhn?, dcn?}.
---@return table {dx, dw, dr, db, dh0, dc0}
function cases.backward(p, f, g, need_dx)
  local attr = rows.lstm_backward.attr()
  attr.need_dx = need_dx == false and 0 or 1
  local dx, dw, dr, db, dh0, dc0 = raw.lstm_backward(p.x, p.w, p.r, p.h0, p.c0, f.y, f.gates, f.cells, g.dy, g.dhn, g.dcn, attr)
  return {dx = dx, dw = dw, dr = dr, db = db, dh0 = dh0, dc0 = dc0}
end

--- Random layer, state and gradients; stream numbers keep the tensors apart.
---@return table p
---@return table g
function cases.layer(B, T, F, H, dtype, stateful)
  local half = dtype == "f16" or dtype == "bf16"
  local function draw(shape, stream, size) return lr.uniform(shape, {seed = 7, stream = stream, low = -size, high = size, dtype = half and "f32" or dtype}) end
  local k = 1 / math.sqrt(H)
  local p = {x = draw({B, T, F}, 1, 1), w = draw({4 * H, F}, 2, k), r = draw({4 * H, H}, 3, k), b = draw({4 * H}, 4, k)}
  local g = {dy = draw({B, T, H}, 5, 1)}
  if stateful then
    p.h0, p.c0 = draw({B, H}, 6, .5), draw({B, H}, 7, .5)
    g.dhn, g.dcn = draw({B, H}, 8, 1), draw({B, H}, 9, 1)
  end
  for _, t in ipairs {p, g} do
    for name, v in pairs(t) do
      if half and not WIDE[name] then t[name] = v:to(dtype) end
    end
  end
  return p, g
end

--- Every tensor of a table in another dtype or on another device.
function cases.moved(t, to)
  local out = {}
  for name, v in pairs(t) do out[name] = v:to(to) end
  return out
end

--- Largest difference over the largest value of b.
function cases.relative(a, b)
  assert(table.concat(a.shape, ",") == table.concat(b.shape, ","), "shapes differ")
  a, b = a:to("cpu"):to("f64"):contiguous(), b:to("cpu"):to("f64"):contiguous()
  local pa, pb, worst, size = a:ptr(), b:ptr(), 0, 1e-12
  for i = 0, a:numel() - 1 do
    local d = math.abs(pa[i] - pb[i])
    if not (d <= worst) then worst = d end
    size = math.max(size, math.abs(pb[i]))
  end
  return worst / size
end

--- Every tensor of b stands in a, within a tolerance; text: what was compared.
function cases.close(a, b, tolerance, text)
  for name, t in pairs(b) do
    local d = cases.relative(a[name], t)
    assert(d <= tolerance, ("%s%s differs by %.3g, allowed %.3g"):format(text and text .. ": " or "", name, d, tolerance))
  end
end

--- Every tensor of b stands in a, equal.
function cases.bits(a, b)
  for name, t in pairs(b) do assert(cases.relative(a[name], t) == 0, name .. " differs") end
end

--- Gradients d against central differences of loss() in the numbers of p (f64, on the CPU), about `most` of each tensor, within 1e-7.
function cases.finite_differences(p, d, loss, most)
  for name, t in pairs {x = d.dx, w = d.dw, r = d.dr, b = d.db, h0 = d.dh0, c0 = d.dc0} do
    local value, grad, n = p[name]:ptr(), t:ptr(), t:numel()
    for i = 0, n - 1, math.max(1, math.floor(n / most)) do
      local kept, e = value[i], 1e-5
      value[i] = kept + e
      local high = loss()
      value[i] = kept - e
      local low = loss()
      value[i] = kept
      assert(math.abs((high - low) / (2 * e) - grad[i]) < 1e-7, ("%s[%d]"):format(name, i))
    end
  end
end

return cases

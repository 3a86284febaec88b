-- Principal components of windows by Chebyshev-filtered subspace iteration on the smaller Gram matrix, in double and
-- deterministic. Knows neither joints nor sequences.
-- Source: Zhou, Saad, Tiago & Chelikowsky 2006 (filtered subspace iteration); Golub & Van Loan 8.5 (Jacobi).

local ffi = require "ffi"

local pca = {}

local function doubles(n) return ffi.new("double[?]", n) end

-- c[n*n] = a a^T of rows a[n*m]; four columns at a time keep four chains of additions going
local function gram_of_rows(a, n, m, c)
  for i = 0, n - 1 do
    local p = a + i * m
    for j = 0, i do
      local q = a + j * m
      local s0, s1, s2, s3, k = 0, 0, 0, 0, 0
      while k + 3 < m do
        s0, s1 = s0 + p[k] * q[k], s1 + p[k + 1] * q[k + 1]
        s2, s3 = s2 + p[k + 2] * q[k + 2], s3 + p[k + 3] * q[k + 3]
        k = k + 4
      end
      while k < m do
        s0 = s0 + p[k] * q[k]
        k = k + 1
      end
      local s = (s0 + s1) + (s2 + s3)
      c[i * n + j], c[j * n + i] = s, s
    end
  end
end

-- y[q][n] = c v[q][n] for symmetric c, vectors as rows: a product of rows
local function multiply(c, n, v, q, y)
  for r = 0, q - 1, 4 do
    local rows = math.min(4, q - r)
    local v0, v1 = v + r * n, v + math.min(r + 1, q - 1) * n
    local v2, v3 = v + math.min(r + 2, q - 1) * n, v + math.min(r + 3, q - 1) * n
    for i = 0, n - 1 do
      local p = c + i * n
      local s0, s1, s2, s3 = 0, 0, 0, 0
      for k = 0, n - 1 do
        local w = p[k]
        s0, s1, s2, s3 = s0 + w * v0[k], s1 + w * v1[k], s2 + w * v2[k], s3 + w * v3[k]
      end
      y[r * n + i] = s0
      if rows > 1 then y[(r + 1) * n + i] = s1 end
      if rows > 2 then y[(r + 2) * n + i] = s2 end
      if rows > 3 then y[(r + 3) * n + i] = s3 end
    end
  end
end

local function dot(a, b, n)
  local s0, s1, k = 0, 0, 0
  while k + 1 < n do
    s0, s1 = s0 + a[k] * b[k], s1 + a[k + 1] * b[k + 1]
    k = k + 2
  end
  if k < n then s0 = s0 + a[k] * b[k] end
  return s0 + s1
end

-- Gram-Schmidt, each vector twice against those before it; one that vanishes becomes zero
local function orthonormalise(v, q, n)
  for i = 0, q - 1 do
    local x = v + i * n
    local before = math.sqrt(dot(x, x, n))
    for _ = 1, 2 do
      for j = 0, i - 1 do
        local y = v + j * n
        local s = dot(x, y, n)
        for k = 0, n - 1 do x[k] = x[k] - s * y[k] end
      end
    end
    local after = math.sqrt(dot(x, x, n))
    local scale = after > 1e-13 * before and after > 0 and 1 / after or 0
    for k = 0, n - 1 do x[k] = x[k] * scale end
  end
end

--- Eigenvalues and eigenvectors of a small symmetric matrix by cyclic Jacobi rotations.
---@param a ffi.cdata* double[n*n], destroyed
---@param n integer
---@return number[] values descending
---@return ffi.cdata* vectors double[n*n], one a row
function pca.jacobi(a, n)
  local u = doubles(n * n)
  for i = 0, n - 1 do u[i * n + i] = 1 end
  for _ = 1, 60 do
    local off, diagonal = 0, 0
    for i = 0, n - 1 do
      diagonal = diagonal + a[i * n + i] ^ 2
      for j = 0, i - 1 do off = off + a[i * n + j] ^ 2 end
    end
    if off <= 1e-30 * diagonal then break end
    for p = 0, n - 2 do
      for r = p + 1, n - 1 do
        local apr = a[p * n + r]
        if apr ~= 0 then
          local theta = (a[r * n + r] - a[p * n + p]) / (2 * apr)
          local t = (theta >= 0 and 1 or -1) / (math.abs(theta) + math.sqrt(theta * theta + 1))
          local c = 1 / math.sqrt(t * t + 1)
          local s = t * c
          for k = 0, n - 1 do
            local x, y = a[k * n + p], a[k * n + r]
            a[k * n + p], a[k * n + r] = c * x - s * y, s * x + c * y
          end
          for k = 0, n - 1 do
            local x, y = a[p * n + k], a[r * n + k]
            a[p * n + k], a[r * n + k] = c * x - s * y, s * x + c * y
          end
          for k = 0, n - 1 do
            local x, y = u[p * n + k], u[r * n + k]
            u[p * n + k], u[r * n + k] = c * x - s * y, s * x + c * y
          end
        end
      end
    end
  end
  local order, values = {}, {}
  for i = 1, n do order[i] = i - 1 end
  table.sort(order, function(x, y)
    local ax, ay = a[x * n + x], a[y * n + y]
    if ax ~= ay then return ax > ay end
    return x < y
  end)
  local sorted = doubles(n * n)
  for i = 1, n do
    values[i] = a[order[i] * n + order[i]]
    ffi.copy(sorted + (i - 1) * n, u + order[i] * n, n * 8)
  end
  return values, sorted
end

-- v = rotations (rows) times v, through y
local function rotate(v, q, n, u, y)
  ffi.fill(y, q * n * 8)
  for i = 0, q - 1 do
    local to = y + i * n
    for j = 0, q - 1 do
      local w, from = u[i * q + j], v + j * n
      for k = 0, n - 1 do to[k] = to[k] + w * from[k] end
    end
  end
  ffi.copy(v, y, q * n * 8)
end

-- Largest k eigenpairs of symmetric positive c[n*n] -> values, vectors as rows.
local function largest(c, n, k)
  local q = math.min(n, k + 16)
  local v, y, z = doubles(q * n), doubles(q * n), doubles(q * n)
  local state = 12345
  for i = 0, q * n - 1 do -- Park-Miller, the same start in every run
    state = state * 16807 % 2147483647
    v[i] = state / 2147483647 - .5
  end
  local small = doubles(q * q)
  local values, last, u
  for round = 1, 200 do
    if round <= 2 or q == n then
      multiply(c, n, v, q, y)
      v, y = y, v
    else -- damp [0, smallest value of the block] by a Chebyshev polynomial of degree 4
      local bound = math.max(values[q], 1e-12 * values[1])
      local prior, now, new = v, y, z
      multiply(c, n, prior, q, now)
      for i = 0, q * n - 1 do now[i] = 2 / bound * now[i] - prior[i] end
      for _ = 2, 4 do
        multiply(c, n, now, q, new)
        for i = 0, q * n - 1 do new[i] = 2 * (2 / bound * new[i] - now[i]) - prior[i] end
        prior, now, new = now, new, prior
      end
      v, y, z = now, prior, new
    end
    orthonormalise(v, q, n)
    multiply(c, n, v, q, y)
    for i = 0, q - 1 do
      for j = 0, i do
        local s = dot(v + i * n, y + j * n, n)
        small[i * q + j], small[j * q + i] = s, s
      end
    end
    values, u = pca.jacobi(small, q)
    rotate(v, q, n, u, y)
    local captured = 0
    for i = 1, math.min(k, q) do captured = captured + values[i] end
    if last and math.abs(captured - last) <= 1e-11 * captured then break end
    last = captured
  end
  return values, v
end

---@class Pca
---@field size integer P numbers a window
---@field rank integer
---@field mean ffi.cdata* double[P]
---@field components ffi.cdata* double[rank*P], orthonormal rows

--- Fits the mean and the first components of rows.
---@param x ffi.cdata* double[n*P]; centred in place
---@param n integer rows
---@param P integer numbers a row
---@param rank integer components wanted; fewer where the rows span fewer
---@return Pca
function pca.fit(x, n, P, rank)
  if n < 1 or P < 1 then error(("pca: %d rows of %d numbers"):format(n, P), 2) end
  local mean = doubles(P)
  for i = 0, n - 1 do
    for k = 0, P - 1 do mean[k] = mean[k] + x[i * P + k] end
  end
  for k = 0, P - 1 do mean[k] = mean[k] / n end
  for i = 0, n - 1 do
    for k = 0, P - 1 do x[i * P + k] = x[i * P + k] - mean[k] end
  end
  local kept, components = 0
  if n <= P then
    local c = doubles(n * n)
    gram_of_rows(x, n, P, c)
    local values, v = largest(c, n, math.min(rank, n))
    components = doubles(math.min(rank, n) * P)
    for i = 0, math.min(rank, n) - 1 do
      if values[i + 1] > 1e-10 * values[1] then
        local to, scale = components + kept * P, 1 / math.sqrt(values[i + 1])
        for r = 0, n - 1 do
          local w, from = v[i * n + r] * scale, x + r * P
          for k = 0, P - 1 do to[k] = to[k] + w * from[k] end
        end
        kept = kept + 1
      end
    end
  else
    local t = doubles(P * n)
    for i = 0, n - 1 do
      for k = 0, P - 1 do t[k * n + i] = x[i * P + k] end
    end
    local c = doubles(P * P)
    gram_of_rows(t, P, n, c)
    local values, v = largest(c, P, math.min(rank, P))
    for i = 1, math.min(rank, P) do if values[i] > 1e-10 * values[1] then kept = i end end
    components = doubles(math.max(kept, 1) * P)
    ffi.copy(components, v, kept * P * 8)
  end
  return { size = P, rank = kept, mean = mean, components = components }
end

--- What the components leave of a row.
---@param model Pca
---@param row ffi.cdata* double[P]
---@param residual ffi.cdata* double[P] out: row minus its reconstruction
function pca.residual(model, row, residual)
  local P, mean, components = model.size, model.mean, model.components
  for k = 0, P - 1 do residual[k] = row[k] - mean[k] end
  for i = 0, model.rank - 1 do
    local c = components + i * P
    -- the components are orthonormal, so one may be taken out after the other
    local s = dot(residual, c, P)
    for k = 0, P - 1 do residual[k] = residual[k] - s * c[k] end
  end
end

return pca

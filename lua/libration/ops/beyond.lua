-- Where position i (from 0, also outside) of a list of n numbers comes from when the list is padded by itself, by mode. Runs nothing.
return {
  edge = function(i, n) return math.max(0, math.min(n - 1, i)) end,
  wrap = function(i, n) return i % n end,
  reflect = function(i, n)
    if n == 1 then return 0 end
    i = i % (2 * n - 2)
    return i < n and i or 2 * n - 2 - i
  end,
}

-- The data room: data sets, splits, the audit, and the rendered infant. Each part is loaded when it is first named.
return require "libration.lazy"("libration.data.", "dataset splits audit rows accuracy landmarks infant recording_check near_duplicates")

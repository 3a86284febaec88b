-- Files in and out, by name: formats.npy, formats.csv and so on load when first touched. docs/FORMATS.md describes the files.
return require "libration.lazy"("libration.formats.", "csv dlc flatbuffer json npy openpose reader safetensors stream tflite trc")

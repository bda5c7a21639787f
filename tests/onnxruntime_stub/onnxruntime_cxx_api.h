// What the C++ example of a bundle uses of onnxruntime's header, for a compiler that only reads: nothing runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#define ORT_TSTR(text) text

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };
enum GraphOptimizationLevel { ORT_ENABLE_ALL };

namespace Ort {
struct Float16_t { std::uint16_t value; };

struct Env { Env(OrtLoggingLevel, const char*); };

struct SessionOptions {
  SessionOptions& SetIntraOpNumThreads(int);
  SessionOptions& SetGraphOptimizationLevel(GraphOptimizationLevel);
};

struct RunOptions { explicit RunOptions(std::nullptr_t); };

struct MemoryInfo { static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType); };

struct TensorTypeAndShapeInfo { std::vector<std::int64_t> GetShape() const; };

struct Value {
  Value(Value&&);
  Value(const Value&) = delete;
  template <typename T>
  static Value CreateTensor(const MemoryInfo&, T*, std::size_t, const std::int64_t*, std::size_t);
  TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
};

struct Session {
  Session(const Env&, const char*, const SessionOptions&);
  std::vector<Value> Run(const RunOptions&, const char* const*, const Value*, std::size_t, const char* const*,
                         std::size_t);
};
}  // namespace Ort

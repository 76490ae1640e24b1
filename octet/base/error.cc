#include "octet/base/error.h"

namespace octet {

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return 2;
    case ErrorCode::kModel:
    case ErrorCode::kUnsupported:
      return 3;
    case ErrorCode::kMemory:
      return 4;
    case ErrorCode::kInternal:
    case ErrorCode::kInvalid:
    case ErrorCode::kIo:
      return 1;
  }
  return 1;
}

void check_failed(const char* condition, const char* file, int line) {
  fail(ErrorCode::kInternal, "internal error: {} does not hold ({}:{})", condition, file, line);
}

}  // namespace octet

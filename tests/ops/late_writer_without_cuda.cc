#include "octet/base/error.h"
#include "tests/ops/late_writer.h"

namespace octet::ops_test {

void write_late(const std::vector<LateWrite>&, Stream) { fail(ErrorCode::kInternal, "this build has no CUDA"); }

}  // namespace octet::ops_test

#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

void run(const GatherRowsOp& op, const Launch&) {
  for (int64_t r = 0; r < op.out.dim(0); ++r) {
    const int64_t row = op.rows.data<int32_t>()[r];
    OCTET_CHECK(row >= 0 && row < op.x.dim(0));
    write_row(op.out, r, read_row(op.x, row));
  }
}

}  // namespace

Kernel<GatherRowsOp> reference_gather_rows() {
  return {.name = "reference.gather_rows",
          .declines = [](const GatherRowsOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet

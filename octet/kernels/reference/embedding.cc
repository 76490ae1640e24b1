#include "octet/kernels/reference/kernels.h"
#include "octet/kernels/reference/rows.h"

namespace octet {
namespace {

void run(const EmbeddingOp& op, const Launch&) {
  for (int64_t t = 0; t < op.out.dim(0); ++t) {
    const int64_t row = op.token_ids.data<int32_t>()[t] - op.first_id;
    if (row >= 0 && row < op.table.dim(0)) {
      write_row(op.out, t, read_row(op.table, row));
    } else {
      write_row(op.out, t, std::vector<float>(static_cast<size_t>(op.out.dim(1)), 0.0f));
    }
  }
}

}  // namespace

Kernel<EmbeddingOp> reference_embedding() {
  return {.name = "reference.embedding",
          .declines = [](const EmbeddingOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet

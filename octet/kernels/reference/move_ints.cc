#include "octet/kernels/reference/kernels.h"

namespace octet {
namespace {

int64_t place(const ConstTensor& index, int64_t i, const ConstTensor& of) {
  const int64_t place = index ? index.data<int32_t>()[i] : i;
  OCTET_CHECK(place >= 0 && place < of.dim(0));
  return place;
}

void run(const MoveIntsOp& op, const Launch&) {
  for (const IntMove& move : op.moves) {
    if (!move.to) continue;
    for (int64_t i = 0; i < move.count(); ++i) {
      move.to.data<int32_t>()[place(move.to_index, i, move.to)] =
          move.from.data<int32_t>()[place(move.from_index, i, move.from)];
    }
  }
}

}  // namespace

Kernel<MoveIntsOp> reference_move_ints() {
  return {.name = "reference.move_ints",
          .declines = [](const MoveIntsOp&, const Launch&) { return std::string(); },
          .run = run};
}

}  // namespace octet

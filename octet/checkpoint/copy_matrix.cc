#include "octet/checkpoint/copy_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "octet/tensor/dispatch.h"

namespace octet {
namespace {

constexpr int64_t kElementsPerPiece = 1 << 16;

int64_t rows_per_piece(const ConstTensor& x) {
  return std::max<int64_t>(1, kElementsPerPiece / std::max<int64_t>(1, x.dim(1)));
}

const std::byte* row_bytes(const ConstTensor& x, int64_t row) {
  return x.bytes + row * x.row_stride * dtype_bytes(x.dtype);
}

// Element i of an array that may not be aligned for T.
template <class T>
float load_f32(const std::byte* array, int64_t i) {
  T value;
  std::memcpy(&value, array + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return to_f32(value);
}

template <class From, class To>
void copy_row(const std::byte* from, std::byte* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const To value = from_f32<To>(load_f32<From>(from, i));
    std::memcpy(to + i * static_cast<int64_t>(sizeof(To)), &value, sizeof(To));
  }
}

void check_real(DType dtype) {
  if (!is_real(dtype)) fail(ErrorCode::kInternal, "{} is not a dtype of real numbers", dtype_name(dtype));
}

constexpr uint8_t kNanMagnitude = 0x7f;  // of E4M3, either sign

bool is_nan_code(std::byte code) { return (std::to_integer<uint8_t>(code) & kNanMagnitude) == kNanMagnitude; }

// Compiles to a few vector instructions per 16 codes; which code it was is asked only when there is one.
bool has_nan_code(const std::byte* codes, int64_t count) {
  uint8_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= static_cast<uint8_t>(is_nan_code(codes[i]) ? 0xff : 0);
  return found != 0;
}

// Calls visit(row) for every row, in pieces on all threads, and looks for NaN codes in the row after that.
template <class Visit>
NanCodes scan_codes(const ConstTensor& codes, ThreadPool& threads, Visit&& visit) {
  OCTET_CHECK(codes.rank() == 2 && codes.dtype == DType::kF8E4M3);
  std::mutex mutex;
  NanCodes nans;
  const auto note = [&](int64_t row) {
    const std::byte* begin = row_bytes(codes, row);
    const std::byte* end = begin + codes.dim(1);
    const std::byte* first = std::find_if(begin, end, is_nan_code);
    const std::lock_guard lock(mutex);
    if (nans.count == 0 || row < nans.first_row) {
      nans.first_row = row;
      nans.first_column = first - begin;
    }
    nans.count += std::count_if(first, end, is_nan_code);
  };
  threads.parallel_for(codes.dim(0), rows_per_piece(codes), [&](int, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      visit(row);
      if (has_nan_code(row_bytes(codes, row), codes.dim(1))) note(row);
    }
  });
  return nans;
}

// splitmix64 (Steele, Lea & Flood 2014): a well-mixed value of a counter.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

bool is_real(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

void copy_matrix(ConstTensor from, Tensor to, ThreadPool& threads) {
  OCTET_CHECK(from.rank() == 2 && from.shape == to.shape);
  check_real(from.dtype);
  check_real(to.dtype);
  const int64_t columns = from.dim(1);
  threads.parallel_for(from.dim(0), rows_per_piece(from), [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const std::byte* source = row_bytes(from, r);
      std::byte* target = to.bytes + r * to.row_stride * dtype_bytes(to.dtype);
      if (from.dtype == to.dtype) {
        std::memcpy(target, source, static_cast<size_t>(columns * dtype_bytes(to.dtype)));
        continue;
      }
      dispatch<DType::kF32, DType::kBF16, DType::kF16>(from.dtype, [&]<DType From>() {
        dispatch<DType::kF32, DType::kBF16, DType::kF16>(
            to.dtype, [&]<DType To>() { copy_row<CType<From>, CType<To>>(source, target, columns); });
      });
    }
  });
}

void row_maxima(ConstTensor x, std::span<float> maxima, ThreadPool& threads) {
  OCTET_CHECK(x.rank() == 2 && static_cast<int64_t>(maxima.size()) == x.dim(0));
  check_real(x.dtype);
  threads.parallel_for(x.dim(0), rows_per_piece(x), [&](int, int64_t begin, int64_t end) {
    dispatch<DType::kF32, DType::kBF16, DType::kF16>(x.dtype, [&]<DType D>() {
      for (int64_t r = begin; r < end; ++r) {
        const std::byte* row = row_bytes(x, r);
        float largest = 0.0f;
        for (int64_t c = 0; c < x.dim(1); ++c) {
          const float magnitude = std::abs(load_f32<CType<D>>(row, c));
          largest = magnitude > largest ? magnitude : largest;
        }
        maxima[static_cast<size_t>(r)] = largest;
      }
    });
  });
}

NanCodes find_nan_codes(ConstTensor codes, ThreadPool& threads) {
  return scan_codes(codes, threads, [](int64_t) {});
}

NanCodes copy_codes(ConstTensor from, Tensor to, ThreadPool& threads) {
  OCTET_CHECK(from.shape == to.shape && from.dtype == to.dtype);
  if (to.dtype == DType::kI8) {  // has no NaN
    threads.parallel_for(from.dim(0), rows_per_piece(from), [&](int, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        std::memcpy(to.bytes + row * to.row_stride, row_bytes(from, row), static_cast<size_t>(from.dim(1)));
    });
    return {};
  }
  return scan_codes(from, threads, [&](int64_t row) {
    std::memcpy(to.bytes + row * to.row_stride, row_bytes(from, row), static_cast<size_t>(from.dim(1)));
  });
}

void fill_dummy(std::string_view name, DummyPlace place, Tensor out, ThreadPool& threads) {
  check_real(out.dtype);
  const uint64_t seed = hash_name(name);
  threads.parallel_for(out.dim(0), rows_per_piece(out), [&](int, int64_t begin, int64_t end) {
    dispatch<DType::kF32, DType::kBF16, DType::kF16>(out.dtype, [&]<DType D>() {
      for (int64_t r = begin; r < end; ++r) {
        CType<D>* row = out.row<CType<D>>(r);
        const int64_t first = (place.first_row + r) * place.num_columns + place.first_column;
        for (int64_t c = 0; c < out.dim(1); ++c) {
          const uint64_t bits = mix(seed + static_cast<uint64_t>(first + c)) >> 40;  // 24 bits
          row[c] = from_f32<CType<D>>((static_cast<float>(bits) * 0x1p-24f - 0.5f) * 0.1f);
        }
      }
    });
  });
}

}  // namespace octet

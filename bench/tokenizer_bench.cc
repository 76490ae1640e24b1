// Tokenizer throughput on one core, in CPU time so that other load does not count.
// Usage: tokenizer_bench FOLDER_WITH_TOKENIZER_JSON TEXT_FILE [CHUNK_BYTES]; chunks stand for prompts.
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/text/tokenizer.h"

namespace {

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int run(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: %s FOLDER TEXT_FILE [CHUNK_BYTES]\n", argv[0]), 2;
  double start = cpu_seconds();
  const octet::Tokenizer tokenizer = octet::Tokenizer::from_folder(argv[1]);
  std::printf("load %.3f s\n", cpu_seconds() - start);
  const std::string text = octet::read_file(argv[2], int64_t{1} << 30);
  const size_t chunk = argc > 3 ? std::stoul(argv[3]) : text.size();
  if (chunk == 0) return std::fprintf(stderr, "nothing to encode\n"), 2;
  for (int round = 0; round < 3; ++round) {
    size_t tokens = 0;
    start = cpu_seconds();
    for (size_t at = 0; at < text.size(); at += chunk) {
      tokens += tokenizer.encode(std::string_view(text).substr(at, chunk), octet::AddSpecialTokens::kNo).size();
    }
    const double seconds = cpu_seconds() - start;
    std::printf("encode %zu bytes, %zu tokens: %.1f MB/s\n", text.size(), tokens,
                static_cast<double>(text.size()) / seconds / 1e6);
  }
  const auto ids = tokenizer.encode(text, octet::AddSpecialTokens::kNo);
  start = cpu_seconds();
  const std::string back = tokenizer.decode(ids, octet::SpecialTokens::kKeep);
  std::printf("decode %zu tokens: %.2f million/s\n", ids.size(),
              static_cast<double>(ids.size()) / (cpu_seconds() - start) / 1e6);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const octet::Error& error) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", error.what());
    return octet::exit_status(error.code());
  }
}

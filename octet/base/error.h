// How octet fails. Expected outcomes (queue full, no free block, request too long) are values; everything that cannot
// continue throws octet::Error, caught at four places only: main, an HTTP route, the engine loop, the Python binding.
//
// Texts are for an operator: what, which file, tensor or field, what was expected, what was found.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace octet {

enum class ErrorCode {
  kInternal,     // a broken invariant of octet itself
  kUsage,        // wrong flags or arguments; the program exits with 2
  kInvalid,      // a request's content is wrong (prompt too long, token id out of range, template error)
  kModel,        // a checkpoint, config, tokenizer or template is missing, damaged or unsupported; exits with 3
  kMemory,       // something does not fit; exits with 4
  kIo,           // the operating system said no
  kUnsupported,  // octet does not do this; the text names what and the alternatives; exits with 3
};

// The exit status of the program when an Error of this code ends it.
int exit_status(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace octet

// An invariant of octet's own code; never used to validate input.
#define OCTET_CHECK(condition) ((condition) ? void(0) : ::octet::check_failed(#condition, __FILE__, __LINE__))

// What xgrammar asks of programs that take its log over (its support/logging.h): failures are exceptions, for
// octet/sampling/xgrammar to word, and the rest, which may be text of requests, is not logged. Part of the library
// itself, so that whatever links one of its objects finds it.
#include <stdexcept>
#include <string>

namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line, const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level, const std::string& message);

void LogFatalImpl(const std::string&, int, const std::string& message) { throw std::runtime_error(message); }
void LogMessageImpl(const std::string&, int, int, const std::string&) {}

}  // namespace xgrammar

// Queues of a device's work, marks in them, and copies through them. On the CPU all of it is done when a call returns.
#pragma once

#include "octet/device/device.h"
#include "octet/tensor/tensor.h"

namespace octet {

// Owns a stream. Move-only.
class StreamOwner {
 public:
  explicit StreamOwner(Device device);
  ~StreamOwner();
  StreamOwner(StreamOwner&& other) noexcept;
  StreamOwner& operator=(StreamOwner&& other) noexcept;
  Stream get() const { return stream_; }

 private:
  Stream stream_;
};

// Makes the device the one on which the calling thread launches kernels. A rank's thread does so once.
void make_current(Device device);

// Until all work queued so far is done. Throws Error{kInternal} with what a kernel did wrong.
void synchronize(Stream stream);

// A mark in a stream. Move-only.
class Event {
 public:
  explicit Event(Device device);
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;

  void record(Stream stream);
  bool is_done() const;                 // all work before the mark
  void wait() const;                    // the calling thread
  void make_wait(Stream stream) const;  // later work of that stream
  // From `start` to here; both recorded and done.
  double milliseconds_since(const Event& start) const;

 private:
  Device device_;
  void* handle_ = nullptr;
};

// Bytes between host and device, or within one, in the order of the stream. Host memory that is not pinned
// (Buffer::pinned) makes the call wait. Sizes equal; rows may be strided, where
// the shapes are equal.
void copy(Tensor to, ConstTensor from, Stream stream);
void copy_bytes(void* to, const void* from, int64_t num_bytes, Stream stream);
void fill_bytes(void* to, std::byte value, int64_t num_bytes, Stream stream);

}  // namespace octet

// The C interface of dram. Written by cbindgen from runtime/c/src; change it there.

#ifndef DRAM_H
#define DRAM_H

#include <stddef.h>
#include <stdint.h>

// 32-bit floating point.
#define DRAM_F32 0

// 64-bit floating point.
#define DRAM_F64 1

// 8-bit signed integers.
#define DRAM_I8 2

// 8-bit unsigned integers.
#define DRAM_U8 3

// 32-bit signed integers.
#define DRAM_I32 4

// 64-bit signed integers.
#define DRAM_I64 5

// Truth values of one byte, 0 or 1.
#define DRAM_BOOL 6

// How a call ended; the numbers are the exit codes of the command.
typedef enum dram_status {
  // It did what was asked.
  DRAM_STATUS_OK = 0,
  // The answer is no: it does not fit the budget, or is not signed by the key that is asked for.
  DRAM_STATUS_NO = 1,
  // It could not be done, or a pointer or length was wrong.
  DRAM_STATUS_ERROR = 2,
} dram_status;

// An open model. Any number of threads may use it at once; they take turns.
typedef struct dram_session dram_session;

// How a model is opened. All zero is the default: no limit, one thread, anybody's bundle.
typedef struct dram_options {
  // The most that it may take from memory in bytes, the mapped bundle included; 0 for no limit.
  uint64_t ram_bytes;
  // Threads that work on one request; 0 for one.
  size_t threads;
  // Longest sequence in tokens, a longer text is cut; 0 for the longest that the bundle was packed for.
  size_t sequence;
  // The key that must have signed the bundle, as 64 hexadecimal digits; NULL for anybody's.
  const char *public_key;
} dram_options;

// A tensor that goes in. It is read during the call only.
typedef struct dram_tensor {
  // The input it is for; NULL for the input at its place in the list.
  const char *name;
  // Element type: `DRAM_F32` and its like.
  uint32_t dtype;
  // Number of extents in `shape`.
  size_t rank;
  // Extents, outermost first.
  const size_t *shape;
  // The values, row-major and in the machine's byte order.
  const void *data;
  // Length of `data` in bytes: the product of `shape` times the element's size.
  size_t bytes;
} dram_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, `major.minor.patch`; lives as long as the program.
const char *dram_version(void);

// What went wrong in this thread's latest call that failed, in one sentence; empty where none has.
// Lives until this thread's next call that fails.
const char *dram_last_error(void);

// Opens the bundle at `path` and puts it into `session`, NULL where that fails. `options` may be NULL
// for the default. `DRAM_STATUS_NO` where it needs more RAM than it may have, before it takes any, or is
// not signed by the key that is asked for.
//
// # Safety
// `path` is NULL or a text that ends in a zero byte; `options` is NULL or points to options whose
// `public_key` is NULL or such a text; `session` is NULL, which is an error, or may be written.
enum dram_status dram_open(const char *path,
                           const struct dram_options *options,
                           struct dram_session **session);

// Closes what `dram_open` gave. NULL is nothing to close.
//
// # Safety
// `session` is NULL or of `dram_open`; no call with it is under way, and none may follow.
void dram_close(struct dram_session *session);

// The most bytes that the session takes from memory, the mapped bundle included; 0 for NULL.
//
// # Safety
// `session` is NULL or open.
uint64_t dram_planned_peak_bytes(const struct dram_session *session);

// Number of labels; 0 where the model gives vectors, and for NULL.
//
// # Safety
// `session` is NULL or open.
size_t dram_labels(const struct dram_session *session);

// Label `index`, counted from 0; NULL where there is none. Lives as long as the session.
//
// # Safety
// `session` is NULL or open.
const char *dram_label(const struct dram_session *session, size_t index);

// What the model says of `text`, into `values`: a probability for each label, in their order, or the
// text as a vector. A text longer than the longest sequence is cut.
//
// `count` becomes the number of values; it may be NULL. Where `capacity` is less, nothing is written to
// `values` and the call fails: with a capacity of 0 it tells how much room to make.
//
// # Safety
// `session` is NULL, which is an error, or open; `text` is NULL, which is one too, or ends in a zero
// byte; `capacity` floats may be written to `values`, and `count` is NULL or may be written.
enum dram_status dram_predict_text(const struct dram_session *session,
                                   const char *text,
                                   float *values,
                                   size_t capacity,
                                   size_t *count);

// What the model makes of `inputs`, `input_count` of them, into `values`. Where `output` is NULL this
// is the model's answer: a probability for each label, row by row of the batch, or the first output.
// Otherwise it is the output of that name, unchanged, which must hold 32-bit floats.
//
// `capacity` and `count` are as for `dram_predict_text`.
//
// # Safety
// `session` is NULL, which is an error, or open; `inputs` holds `input_count` tensors, whose `shape` and
// `data` are as long as they say; `output` is NULL or ends in a zero byte; `capacity` floats may be
// written to `values`, and `count` is NULL or may be written.
enum dram_status dram_predict(const struct dram_session *session,
                              const struct dram_tensor *inputs,
                              size_t input_count,
                              const char *output,
                              float *values,
                              size_t capacity,
                              size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DRAM_H */

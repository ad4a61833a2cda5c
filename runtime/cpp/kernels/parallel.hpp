// A small thread pool: parallel_for over a static partition of an index range, parallel_pieces over
// parts of equal cost.
//
// Each shared object that includes this header has one pool of its own. Threads start with the
// first parallel call and sleep on a condition variable when there is no work. Which thread runs a
// part is not fixed, and what a part is depends on the thread count; kernels therefore must not let
// a result depend on the partition.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace qwen3::kernels {

// Number of processors this process may run on.
inline int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

class ThreadPool {
 public:
  using Part = void (*)(const void* context, std::size_t part);

  static ThreadPool& instance() {
    static ThreadPool pool;
    return pool;
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  ~ThreadPool() { stop_workers(); }

  int num_threads() const { return num_threads_.load(std::memory_order_relaxed); }

  // Sets how many threads, the caller included, share later calls; values below 1 mean the default.
  void set_num_threads(int count) {
    std::lock_guard<std::mutex> owner(owner_);
    const int wanted = count < 1 ? available_processors() : count;
    if (wanted == num_threads()) {
      return;
    }
    stop_workers();
    num_threads_.store(wanted, std::memory_order_relaxed);
  }

  // Runs part(context, 0) ... part(context, parts - 1) and returns when all are done; rethrows the
  // first exception of a part. A call that finds the pool in use runs on its own thread alone.
  void run(std::size_t parts, Part part, const void* context) {
    std::unique_lock<std::mutex> owner(owner_, std::defer_lock);
    if (parts < 2 || inside_part() || !owner.try_lock()) {
      for (std::size_t index = 0; index < parts; ++index) {
        part(context, index);
      }
      return;
    }
    start_workers();
    publish(parts, part, context);
    inside_part() = true;
    work(generation_);
    inside_part() = false;
    wait_until_done();
    if (error_) {
      std::rethrow_exception(std::exchange(error_, nullptr));
    }
  }

 private:
  // Spinning this long before sleeping pays: the operators of a forward pass follow each other more
  // closely than a sleeping thread wakes up.
  static constexpr std::chrono::microseconds kSpinTime{30};

  ThreadPool() : num_threads_(available_processors()) {}

  static bool& inside_part() {
    thread_local bool inside = false;
    return inside;
  }

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Polls `ready` for a short while; returns whether it came true.
  template <typename Ready>
  static bool spin(const Ready& ready) {
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    do {
      for (int poll = 0; poll < 16; ++poll) {
        if (ready()) {
          return true;
        }
        pause();
      }
    } while (std::chrono::steady_clock::now() < end);
    return false;
  }

  // A forked child inherits the handles, not the threads; its callers then do all parts themselves.
  void start_workers() {
    const auto wanted = static_cast<std::size_t>(num_threads() - 1);
    if (workers_.empty()) {
      process_ = current_process();
    }
    while (workers_.size() < wanted) {
      workers_.emplace_back([this, seen = generation_] { worker(seen); });
    }
  }

  void stop_workers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) {
      if (process_ == current_process()) {
        worker.join();
      } else {
        worker.detach();
      }
    }
    workers_.clear();
    stopping_ = false;
  }

  static long current_process() {
#if defined(__linux__)
    return static_cast<long>(getpid());
#else
    return 0;
#endif
  }

  // ticket_ holds the generation in its upper half and the number of unclaimed parts in its lower
  // half, so that one compare-exchange both claims a part and proves that its job is still open:
  // a job cannot end before every claimed part is done, hence part_ and context_ stay valid.
  void publish(std::size_t parts, Part part, const void* context) {
    part_ = part;
    context_ = context;
    pending_.store(parts, std::memory_order_relaxed);
    ++generation_;
    const std::uint64_t ticket =
        (static_cast<std::uint64_t>(generation_) << 32) | static_cast<std::uint32_t>(parts);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ticket_.store(ticket, std::memory_order_release);
    }
    wake_.notify_all();
  }

  void work(std::uint32_t generation) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(ticket >> 32) == generation &&
           static_cast<std::uint32_t>(ticket) != 0) {
      if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
        continue;
      }
      run_part(static_cast<std::uint32_t>(ticket) - 1);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void run_part(std::size_t index) {
    try {
      part_(context_, index);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) {
        error_ = std::current_exception();
      }
    }
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      done_.notify_one();
    }
  }

  void wait_until_done() {
    const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
    if (!spin(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, done);
    }
  }

  void worker(std::uint32_t seen) {
    inside_part() = true;
    while (true) {
      const std::uint32_t generation = wait_for_job(seen);
      if (generation == seen) {
        return;
      }
      seen = generation;
      work(generation);
    }
  }

  // Returns the newest generation, or `seen` when the pool stops.
  std::uint32_t wait_for_job(std::uint32_t seen) {
    const auto newest = [this] {
      return static_cast<std::uint32_t>(ticket_.load(std::memory_order_acquire) >> 32);
    };
    if (!spin([&] { return newest() != seen; })) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || newest() != seen; });
    }
    return newest();
  }

  std::mutex owner_;  // held by the caller that uses the workers
  std::atomic<int> num_threads_;
  std::vector<std::thread> workers_;
  long process_ = 0;

  std::mutex mutex_;  // guards sleeping, stopping_ and error_
  std::condition_variable wake_;
  std::condition_variable done_;
  bool stopping_ = false;
  std::exception_ptr error_;

  Part part_ = nullptr;
  const void* context_ = nullptr;
  std::uint32_t generation_ = 0;
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<std::size_t> pending_{0};
};

// Calls body(begin, end) on contiguous pieces that together cover [0, count).
//
// Args:
//   grain: Least number of indices worth a thread of their own.
template <typename Body>
void parallel_for(std::size_t count, std::size_t grain, const Body& body) {
  ThreadPool& pool = ThreadPool::instance();
  const std::size_t worthwhile = grain > 0 ? count / grain : count;
  const auto threads = static_cast<std::size_t>(pool.num_threads());
  const std::size_t parts = worthwhile < threads ? worthwhile : threads;
  if (parts < 2) {
    if (count > 0) {
      body(std::size_t{0}, count);
    }
    return;
  }
  struct Job {
    const Body& body;
    std::size_t count;
    std::size_t parts;
  };
  const Job job{body, count, parts};
  pool.run(
      parts,
      [](const void* context, std::size_t part) {
        const Job& own = *static_cast<const Job*>(context);
        own.body(own.count * part / own.parts, own.count * (part + 1) / own.parts);
      },
      &job);
}

// `count` pieces of work that cost the same, in units that are the caller's. Pieces that cost
// nothing are none.
struct Pieces {
  std::size_t count;
  std::size_t cost;  // of one

  std::size_t total() const { return count * cost; }

  // How many start before `offset` of some work in which the first one starts at `origin`.
  std::size_t starting_before(std::size_t offset, std::size_t origin) const {
    return offset > origin ? std::min(count, (offset - origin + cost - 1) / cost) : 0;
  }
};

// Calls body(group, piece) for the pieces that start within [begin, end) of the work of all groups.
template <typename PiecesOf, typename Body>
void visit_pieces(std::size_t groups, const PiecesOf& pieces_of, std::size_t begin, std::size_t end,
                  const Body& body) {
  std::size_t origin = 0;
  for (std::size_t group = 0; group < groups && origin < end; ++group) {
    const Pieces pieces = pieces_of(group);
    if (pieces.total() == 0) continue;
    const std::size_t stop = pieces.starting_before(end, origin);
    for (std::size_t i = pieces.starting_before(begin, origin); i < stop; ++i) body(group, i);
    origin += pieces.total();
  }
}

// Calls body(group, piece) for all pieces of all groups. Threads take parts of equal cost, several
// each, so that one that is held up leaves the rest to others.
//
// Args:
//   pieces_of: The Pieces of a group; equal ones whenever it is asked.
//   grain: Least cost worth a part of its own, at least 1.
template <typename PiecesOf, typename Body>
void parallel_pieces(std::size_t groups, const PiecesOf& pieces_of, std::size_t grain,
                     const Body& body) {
  constexpr std::size_t kPartsPerThread = 4;
  std::size_t count = 0;
  std::size_t cost = 0;
  for (std::size_t group = 0; group < groups; ++group) {
    const Pieces pieces = pieces_of(group);
    count += pieces.count;
    cost += pieces.total();
  }
  ThreadPool& pool = ThreadPool::instance();
  const auto threads = static_cast<std::size_t>(pool.num_threads());
  const std::size_t parts = std::min({kPartsPerThread * threads, count, cost / grain});
  if (threads == 1 || parts < 2) return visit_pieces(groups, pieces_of, 0, cost, body);
  const auto visit = [&](std::size_t part) {
    visit_pieces(groups, pieces_of, cost * part / parts, cost * (part + 1) / parts, body);
  };
  pool.run(
      parts,
      [](const void* context, std::size_t part) {
        (*static_cast<const decltype(visit)*>(context))(part);
      },
      &visit);
}

// Calls body(row) for rows of `columns` elements, over threads where that is worth it.
template <typename Body>
void for_each_row(std::size_t rows, std::size_t columns, const Body& body) {
  constexpr std::size_t kThreadElements = 16384;
  parallel_for(rows, kThreadElements / columns + 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace qwen3::kernels

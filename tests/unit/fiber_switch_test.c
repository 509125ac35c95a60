/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the switch itself. Stacks are aligned, every callee-saved register survives a wait, a fiber's frames end where
 * they should, an overflow hits the guard page at once, and ten thousand fibers can wait at the same time.
 * Method: simulated groups, where one thread runs everything; the guard is hit in a child process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

static struct reactor_group *group_create(unsigned fiber_count)
{
	const struct reactor_options options = {.count = 1, .simulate = true, .seed = 7, .fiber_count = fiber_count};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	return group;
}

/* An aligned store to a local faults when the compiler's idea of the stack is wrong. */
static __attribute__((noinline)) int sse_store(void *arg)
{
	volatile __m128 value __attribute__((aligned(16))) = _mm_set1_ps(1.0f);
	const uintptr_t address = (uintptr_t)&value;
	fiber_yield();
	return (int)(address & 15) + (value[3] == 1.0f ? 0 : 100);
}

static void test_stack_is_aligned_for_sse(void **state)
{
	struct reactor_group *group = group_create(8);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), sse_store, NULL), 0);
	reactor_group_destroy(group);
}

/* Fills the callee-saved registers (rbp stays the compiler's frame pointer and is checked by returning at all), waits,
 * and sums up what is in them. */
static int registers_survive(void *arg)
{
	uint64_t wrong;
	__asm__ volatile("movq $0x1111, %%rbx\n\t"
			 "movq $0x2222, %%r12\n\t"
			 "movq $0x3333, %%r13\n\t"
			 "movq $0x4444, %%r14\n\t"
			 "movq $0x5555, %%r15\n\t"
			 "leaq -128(%%rsp), %%rsp\n\t"
			 "movq %%rsp, %%rax\n\t"
			 "andq $-16, %%rsp\n\t"
			 "subq $16, %%rsp\n\t"
			 "movq %%rax, (%%rsp)\n\t"
			 "call fiber_yield\n\t"
			 "movq (%%rsp), %%rsp\n\t"
			 "leaq 128(%%rsp), %%rsp\n\t"
			 "subq $0x1111, %%rbx\n\t"
			 "subq $0x2222, %%r12\n\t"
			 "subq $0x3333, %%r13\n\t"
			 "subq $0x4444, %%r14\n\t"
			 "subq $0x5555, %%r15\n\t"
			 "orq %%r12, %%rbx\n\t"
			 "orq %%r13, %%rbx\n\t"
			 "orq %%r14, %%rbx\n\t"
			 "orq %%r15, %%rbx\n\t"
			 "movq %%rbx, %%rax\n\t"
			 : "=a"(wrong)
			 :
			 : "rbx", "r12", "r13", "r14", "r15", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory",
			 "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
	return wrong != 0;
}

static int clobber(void *arg)
{
	for (int i = 0; i < 4; i++) {
		__asm__ volatile("xorl %%ebx, %%ebx\n\t"
				 "xorl %%r12d, %%r12d\n\t"
				 "xorl %%r13d, %%r13d\n\t"
				 "xorl %%r14d, %%r14d\n\t"
				 "xorl %%r15d, %%r15d\n\t" ::: "rbx", "r12", "r13", "r14", "r15");
		fiber_yield();
	}
	return 0;
}

static void run_clobber(void *arg) { assert_int_equal(clobber(arg), 0); }

static int registers_against_clobber(void *arg)
{
	struct fiber_start other = {.fn = run_clobber, .name = "clobber"};
	fiber_start(&other);
	int wrong = 0;
	for (int i = 0; i < 8; i++)
		wrong |= registers_survive(NULL);
	return wrong;
}

static void test_callee_saved_registers_survive_a_wait(void **state)
{
	struct reactor_group *group = group_create(8);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), registers_against_clobber, NULL), 0);
	reactor_group_destroy(group);
}

/* ---- many ---- */

enum { MANY = 10000 };

struct many {
	struct fiber_start starts[MANY];
	struct fiber *waiting[MANY];
	unsigned parked, ended;
};

struct one_of_many {
	struct many *many;
	unsigned index;
	bool go;
};
static struct one_of_many each[MANY];

static void wait_for_go(void *arg)
{
	struct one_of_many *one = arg;
	unsigned mark = one->index ^ 0x5a5a;
	one->many->waiting[one->index] = fiber_self();
	one->many->parked++;
	while (!one->go)
		fiber_park("go");
	assert_int_equal(mark, one->index ^ 0x5a5a);
	one->many->ended++;
}

static int start_many(void *arg)
{
	struct many *many = arg;
	for (unsigned i = 0; i < MANY; i++) {
		each[i] = (struct one_of_many){.many = many, .index = i};
		many->starts[i] = (struct fiber_start){.fn = wait_for_go, .arg = &each[i], .name = "many"};
		fiber_start(&many->starts[i]);
	}
	while (many->parked < MANY)
		fiber_yield();
	for (unsigned i = 0; i < MANY; i++) {
		each[i].go = true;
		fiber_wake(many->waiting[i]);
	}
	while (many->ended < MANY)
		fiber_yield();
	return 0;
}

static void test_ten_thousand_fibers_wait_at_once(void **state)
{
	struct reactor_group *group = group_create(MANY + 10);
	struct many *many = calloc(1, sizeof(*many));
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), start_many, many), 0);
	struct reactor_stats stats;
	reactor_stats_read(reactor_group_get(group, 0), &stats);
	assert_true(stats.fibers_peak > MANY);
	assert_int_equal(stats.fibers_started, MANY + 1);
	free(many);
	reactor_group_destroy(group);
}

/* ---- the guard ---- */

static __attribute__((noinline)) int dig(volatile char *above, unsigned depth)
{
	volatile char frame[512];
	frame[0] = above ? above[0] : 1;
	return depth == 0 ? frame[0] : dig(frame, depth - 1) + frame[0];
}

static int overflow(void *arg) { return dig(NULL, 1u << 20); }

static void expect_guard_hit(bool mprotect_only)
{
	const pid_t child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		const struct rlimit no_core = {0, 0};
		setrlimit(RLIMIT_CORE, &no_core);
		fiber_pool_force_mprotect(mprotect_only);
		/* A stack size of its own, so that none comes from the cache. */
		const struct reactor_options options = {.count = 1, .simulate = true, .fiber_stack_bytes = 48 << 10};
		struct reactor_group *group;
		if (reactor_group_create(&options, &group) != 0)
			_exit(1);
		reactor_group_run(reactor_group_get(group, 0), overflow, NULL);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void test_overflow_hits_the_guard(void **state)
{
#ifdef LANEFS_ASAN
	skip(); /* the sanitizer answers first */
#endif
	expect_guard_hit(false);
}

static void test_overflow_hits_the_guard_of_old_kernels(void **state)
{
#ifdef LANEFS_ASAN
	skip();
#endif
	expect_guard_hit(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stack_is_aligned_for_sse),
		cmocka_unit_test(test_callee_saved_registers_survive_a_wait),
		cmocka_unit_test(test_ten_thousand_fibers_wait_at_once),
		cmocka_unit_test(test_overflow_hits_the_guard),
		cmocka_unit_test(test_overflow_hits_the_guard_of_old_kernels),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: GPL-2.0
// A TCG plugin: counts the guest kernel's instructions by function, by call path and by block of code.
//
//   qemu-system-x86_64 -accel tcg,thread=single -plugin libprofile.so,symbols=KALLSYMS,out=FILE
//
// Counting starts and stops when the guest executes the instruction of mark.c, any number of times. At each start, KALLSYMS (a copy
// of the guest's /proc/kallsyms) is read; at each stop, lines are added to FILE, tab-separated:
//
//   run
//   block    ADDRESS  INSTRUCTIONS  TIMES
//   node     ID  PARENT  SYMBOL  MODULE  CALLS  INSTRUCTIONS
//
// A node is a function called on one path; its instructions are its own, without those of what it calls. Who called whom is told
// from the stack pointer alone: a function starts where a symbol starts, with its return address on top of the stack, and has
// returned when the stack pointer is above that place. A function on another stack (interrupts) counts as called by what it
// interrupted.
//
// The declarations are those of QEMU's plugin interface, version 3; Debian ships no header for it.

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
struct qemu_plugin_register;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
typedef struct {
	struct qemu_plugin_register *handle;
	const char *name;
	const char *feature;
} qemu_plugin_reg_descriptor;
typedef struct {
	char *data;
	unsigned int len;
} GArray;
typedef struct {
	uint8_t *data;
	unsigned int len;
} GByteArray;
enum { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS };
enum { QEMU_PLUGIN_COND_NE = 3 };

typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*vcpu_cb)(qemu_plugin_id_t, unsigned int);
typedef void (*vcpu_udata_cb)(unsigned int, void *);
extern void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, vcpu_cb);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
extern void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *, vcpu_udata_cb, int flags, int cond,
						      qemu_plugin_u64 entry, uint64_t imm, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, vcpu_udata_cb, int flags, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
extern struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
extern void qemu_plugin_u64_set(qemu_plugin_u64, unsigned int, uint64_t);
extern GArray *qemu_plugin_get_registers(void);
extern int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *);
extern void qemu_plugin_outs(const char *);
extern GByteArray *g_byte_array_new(void);
extern GByteArray *g_byte_array_set_size(GByteArray *, unsigned int);

__attribute__((visibility("default"))) int qemu_plugin_version = 3;

static const char *symbols_path, *out_path;
static qemu_plugin_u64 counting;
static bool active;

static void fail(const char *what)
{
	fprintf(stderr, "profile: %s\n", what);
	exit(1);
}

static void *allocate(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p)
		fail("no memory");
	return p;
}

// Symbols ----------------------------------------------------------------------------------------------------------------

struct symbol {
	uint64_t address;
	char *name, *module;
	bool transparent; // a thunk: counts for whoever jumped to it
	bool switches; // goes on in another task
};
static struct symbol *symbols;
static size_t n_symbols;
static struct symbol user = { .name = "(user)", .module = "" };

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static bool is_thunk(const char *name)
{
	if (!strncmp(name, "__pi_", 5))
		name += 5;
	return !strncmp(name, "__x86_", 6) || !strncmp(name, "srso_", 5) || !strncmp(name, "retbleed_", 9) ||
	       !strncmp(name, "its_", 4);
}

static void read_symbols(void)
{
	FILE *f = fopen(symbols_path, "r");
	char name[1024], module[256], type, line[2048];
	uint64_t address;
	size_t room = 1 << 18;

	if (!f)
		fail("can't open the symbols");
	n_symbols = 0;
	symbols = allocate(room, sizeof(*symbols));
	while (fgets(line, sizeof(line), f)) {
		module[0] = 0;
		if (sscanf(line, "%" SCNx64 " %c %1023s [%255[^]]]", &address, &type, name, module) < 3)
			continue;
		// Code only, and none of the compiler's local marks.
		if (!strchr("tTwW", type) || !strncmp(name, "__pfx_", 6) || !strncmp(name, ".L", 2))
			continue;
		if (n_symbols == room)
			symbols = realloc(symbols, (room *= 2) * sizeof(*symbols));
		if (!symbols)
			fail("no memory");
		symbols[n_symbols++] = (struct symbol){ address, strdup(name), strdup(module), is_thunk(name),
							!strcmp(name, "__switch_to_asm") };
	}
	fclose(f);
	if (n_symbols < 1000)
		fail("no symbols: is /proc/kallsyms readable in the guest?");
	qsort(symbols, n_symbols, sizeof(*symbols), by_address);
}

static struct symbol *symbol_at(uint64_t address)
{
	size_t low = 0, high = n_symbols;

	if (!(address >> 63) || address < symbols[0].address)
		return &user;
	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (symbols[middle].address <= address)
			low = middle;
		else
			high = middle;
	}
	// Of several names for one address always the same one.
	while (low && symbols[low - 1].address == symbols[low].address)
		low--;
	return &symbols[low];
}

// Call paths -------------------------------------------------------------------------------------------------------------

struct node {
	struct symbol *symbol;
	struct node *parent, *child, *sibling;
	uint64_t calls, instructions;
	unsigned int id;
};
struct frame {
	struct node *node;
	uint64_t sp; // where its return address is
};
static struct node root;
static struct frame stack[4096];
static size_t depth;

// Kernel stacks, and those of interrupts, are 16 KiB and aligned.
static uint64_t stack_of(uint64_t sp)
{
	return sp >> 14;
}

static struct node *child(struct node *parent, struct symbol *symbol)
{
	struct node **at = &parent->child, *n;

	for (; (n = *at); at = &n->sibling)
		if (n->symbol == symbol)
			return n;
	n = allocate(1, sizeof(*n));
	n->symbol = symbol;
	n->parent = parent;
	*at = n;
	return n;
}

// The node of the code that now runs in `symbol` with stack pointer `sp`; `entry`: at its first instruction.
static struct node *locate(struct symbol *symbol, uint64_t sp, bool entry)
{
	size_t d = depth;
	struct node *top;

	// Back on the stack that was interrupted?
	while (d && stack_of(stack[d - 1].sp) != stack_of(sp))
		d--;
	if (d || (depth && stack[depth - 1].node->symbol->switches))
		depth = d;
	// What has returned.
	while (depth && stack_of(stack[depth - 1].sp) == stack_of(sp) && stack[depth - 1].sp < sp)
		depth--;
	top = depth ? stack[depth - 1].node : &root;
	if (symbol->transparent)
		return top;
	if (top->symbol == symbol && !(entry && stack[depth - 1].sp != sp))
		return top;
	if (!entry) {
		// Jumped into the middle: a part of the function that the compiler moved away, or something not seen from
		// its start.
		struct node *n = top;

		while (n != &root && n->symbol != symbol)
			n = n->parent;
		if (n != &root)
			return n;
	}
	if (depth == sizeof(stack) / sizeof(*stack))
		depth = 0;
	top = child(top, symbol);
	top->calls++;
	stack[depth++] = (struct frame){ top, sp };
	return top;
}

// Blocks of code ---------------------------------------------------------------------------------------------------------

struct block {
	uint64_t address, times;
	uint32_t instructions;
	struct symbol *symbol;
	struct block *next;
};
#define N_BUCKETS 65536
static struct block *blocks[N_BUCKETS];
static struct qemu_plugin_register *sp_register;
static GByteArray *buffer;

static void executed(unsigned int cpu, void *data)
{
	struct block *b = data;
	uint64_t sp;

	(void)cpu;
	if (!active)
		return;
	if (!b->symbol)
		b->symbol = symbol_at(b->address);
	b->times++;
	g_byte_array_set_size(buffer, 0);
	if (qemu_plugin_read_register(sp_register, buffer) != 8)
		fail("can't read rsp");
	memcpy(&sp, buffer->data, 8);
	locate(b->symbol, sp, b->address == b->symbol->address)->instructions += b->instructions;
}

static unsigned int ids;

static void write_nodes(FILE *f, struct node *n)
{
	for (struct node *c = n->child; c; c = c->sibling) {
		c->id = ++ids;
		fprintf(f, "node\t%u\t%u\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\n", c->id, n->id, c->symbol->name,
			c->symbol->module, c->calls, c->instructions);
		write_nodes(f, c);
	}
}

static void start(void)
{
	read_symbols();
	for (size_t i = 0; i < N_BUCKETS; i++)
		for (struct block *b = blocks[i]; b; b = b->next) {
			b->symbol = NULL;
			b->times = 0;
		}
	root.child = NULL;
	depth = 0;
}

static void stop(void)
{
	FILE *f = fopen(out_path, "a");

	if (!f)
		fail("can't write");
	fprintf(f, "run\n");
	for (size_t i = 0; i < N_BUCKETS; i++)
		for (struct block *b = blocks[i]; b; b = b->next)
			if (b->times)
				fprintf(f, "block\t%" PRIx64 "\t%u\t%" PRIu64 "\n", b->address, b->instructions, b->times);
	ids = 0;
	write_nodes(f, &root);
	if (fclose(f))
		fail("can't write");
}

static void marked(unsigned int cpu, void *data)
{
	(void)data;
	if (active)
		stop();
	else
		start();
	active = !active;
	qemu_plugin_u64_set(counting, cpu, active);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	static const uint8_t mark[] = { 0x0f, 0x1f, 0x84, 0x00, 0x42, 0x53, 0x56, 0x52 };
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct block **bucket = &blocks[(address ^ address >> 16) % N_BUCKETS], *b;

	(void)id;
	if (!(address >> 63)) {
		for (size_t i = 0; i < n; i++) {
			struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
			uint8_t bytes[sizeof(mark)];

			if (qemu_plugin_insn_size(insn) == sizeof(mark) &&
			    qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) == sizeof(bytes) &&
			    !memcmp(bytes, mark, sizeof(mark)))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS, NULL);
		}
	}
	for (b = *bucket; b; b = b->next)
		if (b->address == address && b->instructions == n)
			break;
	if (!b) {
		b = allocate(1, sizeof(*b));
		b->address = address;
		b->instructions = n;
		b->next = *bucket;
		*bucket = b;
	}
	qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, executed, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE, counting, 0, b);
}

static void cpu_started(qemu_plugin_id_t id, unsigned int cpu)
{
	GArray *registers = qemu_plugin_get_registers();
	qemu_plugin_reg_descriptor *r = (void *)registers->data;

	(void)id, (void)cpu;
	for (unsigned int i = 0; i < registers->len; i++)
		if (!strcmp(r[i].name, "rsp"))
			sp_register = r[i].handle;
	if (!sp_register)
		fail("no register rsp");
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "symbols=", 8))
			symbols_path = argv[i] + 8;
		else if (!strncmp(argv[i], "out=", 4))
			out_path = argv[i] + 4;
	}
	if (!symbols_path || !out_path) {
		fprintf(stderr, "profile: say symbols= and out=\n");
		return 1;
	}
	root.symbol = &user;
	buffer = g_byte_array_new();
	counting = (qemu_plugin_u64){ qemu_plugin_scoreboard_new(sizeof(uint64_t)), 0 };
	qemu_plugin_register_vcpu_init_cb(id, cpu_started);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
// Executes the instruction that profile.c waits for: a nop with a tell-tale displacement. The first call starts counting, the
// second one stops it.

int main(void)
{
	asm volatile("nopl 0x52565342(%rax,%rax)");
	return 0;
}

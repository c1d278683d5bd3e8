"""Agents, P at once: policy, value net, memory, running statistics, buffer."""

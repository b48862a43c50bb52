"""Streams between a client and a Pod of this node: commands, attachments, ports. What the kubelet's streaming server is to Kubernetes.

It must not know runtimes (it is given their `Streams`) nor who may ask: whoever shows the cluster's certificate has asked the API server.
"""

"""Trained models as ONNX graphs, for onnxruntime and sherpa-onnx."""

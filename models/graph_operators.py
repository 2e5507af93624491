"""operator names → what a version's graph may be made of.

A list of what is known, not of what is forbidden: an operator that ONNX adds later was looked at by nobody here. All of
these answer the same to the same input, end by themselves, and read nothing but their inputs. Left out are: control
flow (`Loop`, `Scan`, `If`, `SequenceMap`: a loop of 217 bytes does not end), what draws random numbers (a prediction
could not be made again), sequences and optionals, and whatever parses bytes. `Pipeline.operators` adds others by name.
"""

from typing import Final

DEFAULT, ML = "", "ai.onnx.ml"

_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid
Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor Dropout
"""
_LINEAR = """
Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose DequantizeLinear Det DynamicQuantizeLinear
Einsum GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LRN LSTM
LayerNormalization LpNormalization LpPool MatMul MatMulInteger MaxPool MeanVarianceNormalization QLinearConv
QLinearMatMul QuantizeLinear RMSNormalization RNN RotaryEmbedding
"""
_REDUCING = """
ArgMax ArgMin CumProd CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax TopK
"""
_MOVING = """
Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND GridSample
NonZero OneHot Pad Range Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
Squeeze Tile Transpose Trilu Unsqueeze Upsample
"""
_OF_ML = """
ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor
"""

ALLOWED: Final = frozenset(
    [(DEFAULT, name) for names in (_ELEMENTWISE, _LINEAR, _REDUCING, _MOVING) for name in names.split()]
    + [(ML, name) for name in _OF_ML.split()]
)

# Operators whose output is as large as a *value* says, and the inputs that hold it. An event must not say it.
SIZED_BY: Final[dict[str, tuple[int, ...]]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Tile": (1, 2),
    "Upsample": (1,),
}
# Operators whose output is no larger than their inputs, but whose shape depends on values: those of these inputs, or
# of all of them.
SHAPED_BY: Final[dict[str, tuple[int, ...] | None]] = {
    "Compress": None,
    "NonZero": None,
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
